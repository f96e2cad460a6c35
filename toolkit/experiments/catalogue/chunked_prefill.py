"""Hybrid batches and chunked prefills, each alone and both together (Sarathi-Serve, table 4).

Yi-34B on two A100 as a simulated machine, by its roofline; OpenChat-ShareGPT4 as lengths with the
published moments; 128 requests and a budget of 1,024 tokens as in the paper. The paper gives no
rate. Here it is 0.6 requests/s, which leaves every system with a queue that does not grow.

- hybrid: whole prompts and generated tokens in one step (Orca's batches);
- chunked: prompts in chunks of the budget, and generated tokens, in steps by turns;
- both: generated tokens first, and as much of a prompt as the budget leaves (``decode-first``);
- neither, for comparison: whole prompts in steps of their own, before all else (``prefill-first``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from toolkit.experiments.arrivals import Poisson
from toolkit.experiments.catalogue.result import Result, check_size
from toolkit.experiments.claims_table import claims_of, find_claim
from toolkit.experiments.surrogates import OpenChatShareGPT4
from toolkit.experiments.sweeping import sweep
from toolkit.experiments.workload import Workload
from toolkit.request import Request
from toolkit.simulate import Arrival, Machine
from toolkit.simulate.progress import progress_bar

__all__ = ["CLAIMS", "TITLE", "TurnsOfChunks", "plot", "run"]

TITLE = "Do chunked prompts keep streams flowing?"
CLAIMS = tuple(claim.id for claim in claims_of("Sarathi"))

_RATE = 0.6
_NUM_REQUESTS = 128
_BUDGET = 1_024
_WHOLE = 8_192  # the longest prompt of the data set
_BUDGETS = (256, 512, 1_024, 2_048, 4_096, _WHOLE)
_NUM_SEEDS = {"quick": 3, "paper": 20}
_PAPER_ORDER = {"ttft": ("hybrid", "both", "chunked"), "tbt": ("both", "chunked", "hybrid")}
_COLUMNS = {"ttft": "ttft_s_p50", "tbt": "itl_s_p99"}
# The scene of the timeline: streams that flow, and a long prompt that arrives among them.
_STREAMS, _STREAM_TOKENS, _LONG_PROMPT, _LONG_AT_S = 16, 120, 8_000, 1.0


class TurnsOfChunks:
    """Chunks of prompts and generated tokens by turns, never in one step.

    What chunked prefills are without hybrid batches: a stream waits for one chunk between two of
    its tokens, and a prompt for a step of the streams between two of its chunks.
    """

    def __init__(self) -> None:
        self._view: Any = None
        self._step: int | None = None
        self._is_for_prompts = False
        self._was_for_prompts = False

    def admit(self, request: Request, view: Any) -> bool:
        """Only in a step for prompts."""
        return self._prompts_have_the_turn(view)

    def chunk(self, request: Request, budget: int, view: Any) -> int:
        """All of the budget to those whose turn it is."""
        return budget if _generates(request) != self._prompts_have_the_turn(view) else 0

    def _prompts_have_the_turn(self, view: Any) -> bool:
        if view is not self._view:
            self._view = view
            if view.last_step != self._step:  # the same step may be looked at twice
                self._step, self._was_for_prompts = view.last_step, self._is_for_prompts
            streams = sum(map(_generates, view.running))
            has_prompts = bool(view.waiting) or streams < len(view.running)
            self._is_for_prompts = has_prompts and not (streams and self._was_for_prompts)
        return self._is_for_prompts


def _generates(request: Request) -> bool:
    """Whether all that it lacks is the token after its last one."""
    return request.num_output_tokens > 0 and request.num_computed_tokens == request.num_tokens - 1


SYSTEMS: dict[str, dict[str, Any]] = {
    "hybrid": {"policy": "decode-first", "max_num_batched_tokens": _WHOLE},
    "chunked": {"policy": TurnsOfChunks, "max_num_batched_tokens": _BUDGET},
    "both": {"policy": "decode-first", "max_num_batched_tokens": _BUDGET},
    "neither": {"policy": "prefill-first", "max_num_batched_tokens": _WHOLE},
}


def run(size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
    """Measure the four systems, the token budgets between, and one long prompt among streams.

    Tables: "systems" and "budgets" (a row per seed, as ``sweep`` returns them), "stall" (the
    longest gap of any stream over time, by system).
    """
    check_size(size)
    machine = Machine("yi-34b", "A100-80GB", tensor_parallel=2)
    seeds = range(seed, seed + _NUM_SEEDS[size])
    w = Workload(Poisson(_RATE), OpenChatShareGPT4(), num_requests=_NUM_REQUESTS)
    systems, budgets, stalls = [], [], []
    total = len(SYSTEMS) + len(_BUDGETS)
    with progress_bar(total, "Chunked prefill", unit="system", progress=progress) as bar:
        for name, options in SYSTEMS.items():
            systems.append(_swept(w, machine, seeds, name, **options))
            stalls.append(_stall(machine, name, **options))
            bar.update()
        for budget in _BUDGETS:
            label = f"{budget}"
            table = _swept(
                w, machine, seeds, label, policy="decode-first", max_num_batched_tokens=budget
            )
            budgets.append(table.assign(token_budget=budget))
            bar.update()
    data = {
        "systems": pd.concat(systems, ignore_index=True),
        "budgets": pd.concat(budgets, ignore_index=True),
        "stall": pd.concat(stalls, ignore_index=True),
    }
    measured = _measured(data["systems"])
    return Result("chunked_prefill", size, data, measured, _reasons(measured), seed)


def _swept(
    w: Workload, machine: Machine, seeds: Iterable[int], system: str, *, policy: Any, **options: Any
) -> pd.DataFrame:
    """Run one system with every seed; gaps between tokens need the record's tokens."""
    table = sweep(
        w,
        machine,
        policy={system: policy},
        seeds=seeds,
        progress=False,
        level="tokens",
        max_num_seqs=_NUM_REQUESTS,
        **options,
    )
    return table.rename(columns={"policy": "system"})


def _stall(machine: Machine, system: str, **options: Any) -> pd.DataFrame:
    """Return the longest gap before a token of any stream, while a long prompt is computed."""
    streams = [Arrival(i, 0.0, 64, _STREAM_TOKENS) for i in range(_STREAMS)]
    late = Arrival(_STREAMS, _LONG_AT_S, _LONG_PROMPT, 2)
    options["policy"] = options["policy"]() if callable(options["policy"]) else options["policy"]
    record = machine.run([*streams, late], level="tokens", progress=False, **options)
    tokens = record.tokens
    short = record.requests["request_id"][record.requests["num_prompt_tokens"] < _LONG_PROMPT]
    of_streams = tokens[tokens["request_id"].isin(short) & tokens["itl_s"].notna()]
    gaps = of_streams.groupby("sent_s")["itl_s"].max()
    return pd.DataFrame({"system": system, "time_s": gaps.index, "gap_s": gaps.to_numpy()})


def _measured(systems: pd.DataFrame) -> dict[str, float]:
    means = systems.groupby("system", sort=False)[list(_COLUMNS.values())].mean()
    found = {
        f"sarathi-{system}-{measure}": float(means.at[system, column])
        for system in _PAPER_ORDER["tbt"]
        for measure, column in _COLUMNS.items()
    }
    for measure, order in _PAPER_ORDER.items():
        values = [found[f"sarathi-{system}-{measure}"] for system in order]
        found[f"sarathi-{measure}-order"] = float(_rises(values))
    found["sarathi-tbt-gain"] = found["sarathi-hybrid-tbt"] / found["sarathi-both-tbt"]
    return found


def _rises(values: Sequence[float]) -> bool:
    return all(one < other for one, other in pairwise(values))


def _reasons(measured: dict[str, float]) -> dict[str, str]:
    """Say of each number in seconds what it rests on, and of each order what was found."""
    rests = f"roofline of the machine, not validated; {_RATE} requests/s, the paper gives no rate"
    reasons = {name: rests for name in measured if find_claim(name).kind == "ratio"}
    for measure, order in _PAPER_ORDER.items():
        values = (f"{name} {measured[f'sarathi-{name}-{measure}']:.3g} s" for name in order)
        reasons[f"sarathi-{measure}-order"] = ", ".join(values)
    return reasons


def plot(result: Result) -> Any:
    """Draw P50 TTFT against P99 TBT for systems and budgets, and the gaps around a long prompt."""
    from toolkit.experiments import plots

    with plots.style():
        fig = plots.figure(height_in=2.9, width_in=7.0)
        trade, scene = fig.subplots(1, 2)
        _draw_trade(trade, result, plots)
        _draw_scene(scene, result.data["stall"], plots)
    fig.data = result.data["systems"]
    return fig


def _draw_trade(axes: Any, result: Result, plots: Any) -> None:
    budgets = result.data["budgets"].groupby("token_budget")[list(_COLUMNS.values())].mean()
    x, y = budgets[_COLUMNS["tbt"]], budgets[_COLUMNS["ttft"]]
    axes.plot(x, y, "-", color="#999999", lw=1, zorder=1)
    for budget in budgets.index:
        axes.annotate(
            f"{budget:,}",
            (x[budget], y[budget]),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize=6.5,
            color="#707070",
        )
    systems = result.data["systems"].groupby("system", sort=False)[list(_COLUMNS.values())].mean()
    for place, (name, row) in enumerate(systems.iterrows()):
        look = plots.look(place)
        at = row[_COLUMNS["tbt"]], row[_COLUMNS["ttft"]]
        axes.plot(*at, look.marker, color=look.color, ms=7, label=str(name), zorder=3)
        if name in _PAPER_ORDER["tbt"]:
            said = [find_claim(f"sarathi-{name}-{measure}").value for measure in ("tbt", "ttft")]
            axes.plot(*said, look.marker, mec=look.color, mfc="white", ms=7, zorder=2)
    axes.plot([], [], "s", mec=plots.PAPER_COLOUR, mfc="white", label="paper")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="P99 time between tokens (s)",
        ylabel="P50 time to first token (s)",
        title="By token budget (grey), by system",
    )
    axes.legend()


def _draw_scene(axes: Any, stall: pd.DataFrame, plots: Any) -> None:
    for place, (name, line) in enumerate(stall.groupby("system", sort=False)):
        look = plots.look(place)
        axes.plot(
            line["time_s"],
            line["gap_s"],
            color=look.color,
            linestyle=look.linestyle,
            label=str(name),
        )
    axes.axvline(_LONG_AT_S, color=plots.PAPER_COLOUR, lw=0.8, ls=":")
    axes.set(
        yscale="log",
        xlabel="time (s)",
        ylabel="longest gap of a stream (s)",
        title=f"A prompt of {_LONG_PROMPT:,} tokens arrives",
    )
