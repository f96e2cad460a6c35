"""Where the KV memory goes, and so how many requests run at once: vLLM's figures 2 and 13.

Kwon et al. 2023 (PagedAttention), section 6.2: OPT-13B on an A100-40GB, whose 12 GiB of KV memory
hold 15,728 tokens; ShareGPT at 2 requests/s and Alpaca at 30, under Orca's allocator with three
kinds of reservation, and under paging.

The scheduler, the allocators and their accounting are exact. Two things are not the paper's: the
lengths, of which only means were published (the surrogates say so), and the time of a step, which
comes from a published fit for the same GPU with more memory. Prompts are computed in steps of their
own, before all else, as vLLM did then (``prefill-first``). Under Orca the memory is full at these
rates, so that memory and lengths alone decide how many run; under paging it is not, and the number
is rate x latency, which the lengths and the time of a step decide.

A few long outputs move these numbers by a tenth and more, so that each is the mean of several
seeds, and a verdict says how they scatter.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size, means
from toolkit.experiments.claims.table import ALLOCATOR_NAMES, find_claim
from toolkit.experiments.plots import DataFigure, figure, look, style
from toolkit.experiments.workloads.arrivals import Poisson
from toolkit.experiments.workloads.surrogates import Alpaca, ShareGPT
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, MemoryMeter, MemoryUse, drive, progress_bar

__all__ = ["ALLOCATOR_NAMES", "CLAIMS", "ENGINE_OF_2023", "TITLE", "plot", "run"]

TITLE = "Where does the KV memory go?"

_LOADS = {"sharegpt": (ShareGPT, 2.0), "alpaca": (Alpaca, 30.0)}
# Seconds of each load. Orca's queue only grows, and paging is at rest after a few latencies.
_DURATIONS_S = {
    "quick": {"sharegpt": 240.0, "alpaca": 30.0},
    "paper": {"sharegpt": 3600.0, "alpaca": 3600.0},
}
_WARMUP_SHARE = 1 / 3
_NUM_SEEDS = 3
# The engine of that time: prompts in steps of their own, of 2,560 tokens at most, nothing shared.
ENGINE_OF_2023: dict[str, Any] = {
    "policy": "prefill-first",
    "max_num_batched_tokens": 2560,
    "enable_prefix_caching": False,
}

# The paper's names of the parts, which are the first word of the claims' too.
_PARTS = {
    "token_states": "token",
    "reservation": "reservation",
    "internal_fragmentation": "internal",
    "external_fragmentation": "external",
}
_FIG2 = tuple(
    f"vllm-fig2-{allocator}-{part}"
    for allocator, parts in {
        "orca-max": ("token", "reservation", "internal", "external"),
        "orca-pow2": ("token", "reservation", "internal", "external"),
        "orca-oracle": ("token", "reservation", "external"),
        "paged": ("token",),
    }.items()
    for part in parts
)
_FIG13 = tuple(f"vllm-fig13-{load}-{allocator}" for load in _LOADS for allocator in ALLOCATOR_NAMES)
CLAIMS = ("vllm-orca-max-batch", *_FIG2, *_FIG13)

# Whose bar it is: how far it stands from the allocator's place, and how opaque it is.
_SIDES = {"measured": (-0.2, 1.0), "paper": (0.2, 0.4)}


def run(size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
    """Serve both loads under every allocator, and look where the memory went.

    Args:
        size: "quick" (240 s of ShareGPT, 30 s of Alpaca) or "paper" (an hour of each).
        progress: Whether to show a bar.
        seed: The first of the three that the loads are drawn with.

    Returns:
        Tables ``memory`` (load, allocator, seed, part, share of all slots, share of the allocated
        ones) and ``batched`` (load, allocator, seed, requests that ran at once on average and at
        most).
    """
    check_size(size)
    machine = Machine("opt-13b", "A100-40GB")
    memory, batched = [], []
    runs = list(product(_LOADS, ALLOCATOR_NAMES, range(seed, seed + _NUM_SEEDS)))
    with progress_bar(len(runs), "Where the memory goes", unit="run", progress=progress) as bar:
        for load, allocator, drawn in runs:
            lengths, rate = _LOADS[load]
            duration_s = _DURATIONS_S[size][load]
            w = Workload(
                Poisson(rate), lengths(), num_requests=round(1.2 * rate * duration_s), seed=drawn
            )
            use, mean, most = _serve(machine, w, allocator, duration_s)
            shares = {of: use.shares(of=of) for of in ("all", "allocated")}
            cell = {"load": load, "allocator": allocator, "seed": drawn}
            memory += [
                {
                    **cell,
                    "part": part,
                    "share_of_all": shares["all"][part],
                    "share_of_allocated": shares["allocated"].get(part),
                }
                for part in MemoryUse._fields
            ]
            batched.append({**cell, "num_running": mean, "most_running": most})
            bar.update()
    data = {"memory": pd.DataFrame(memory), "batched": pd.DataFrame(batched)}
    samples = _samples(data)
    return Result(
        "where_the_memory_goes", size, data, means(samples), _REASONS, seed, samples=samples
    )


def _serve(
    machine: Machine, w: Workload, allocator: str, duration_s: float
) -> tuple[MemoryUse, float, int]:
    """Return where the memory went after the warm-up, and how many ran: on average, at most."""
    engine = machine.engine(allocator=allocator, **ENGINE_OF_2023)
    meter = MemoryMeter(engine, since_s=_WARMUP_SHARE * duration_s)
    drive(engine, w.arrivals(), until_s=duration_s, progress=False)
    return meter.mean, meter.mean_num_running, int(engine.record.steps["num_running"].max())


_LENGTHS = "lengths are surrogates: of the paper's only means were published"
_REASONS = dict.fromkeys((*_FIG2, *_FIG13), _LENGTHS) | dict.fromkeys(
    ("vllm-fig13-sharegpt-paged", "vllm-fig13-alpaca-paged"),
    f"{_LENGTHS}; below saturation: rate x latency, so that the step time of another GPU decides",
)


def _samples(data: dict[str, pd.DataFrame]) -> dict[str, list[float]]:
    """Return what the claims ask for, by id, a number for each seed; shares in per cent."""
    batched = data["batched"].groupby(["load", "allocator"])
    samples = {
        f"vllm-fig13-{load}-{allocator}": rows["num_running"].tolist()
        for (load, allocator), rows in batched
    }
    most = batched.get_group(("sharegpt", "orca-max"))["most_running"]
    samples["vllm-orca-max-batch"] = most.astype(float).tolist()
    memory = data["memory"][data["memory"]["load"] == "sharegpt"]
    for (allocator, part), rows in memory.groupby(["allocator", "part"]):
        claim = f"vllm-fig2-{allocator}-{_PARTS.get(part)}"
        if claim in _FIG2:
            samples[claim] = (100 * rows[_share_drawn(allocator)]).tolist()
    return samples


def _share_drawn(allocator: str) -> str:
    """Return the column of figure 2: of what blocks take for vLLM, of all memory for Orca."""
    return "share_of_allocated" if allocator == "paged" else "share_of_all"


def plot(result: Result) -> DataFigure:
    """Draw figure 2 as stacked bars and figure 13 as bars; the paper's stand beside, paler."""
    with style():
        fig = figure(width_in=7.6, height_in=3.0)
        parts, sharegpt, alpaca = fig.subplots(1, 3, width_ratios=(1.1, 1, 1))
        rows = _draw_parts(parts, result)
        for axes, load, title in (
            (sharegpt, "sharegpt", "ShareGPT, 2 req/s"),
            (alpaca, "alpaca", "Alpaca, 30 req/s"),
        ):
            rows += _draw_batched(axes, result, load, title)
        fig.data = pd.DataFrame(rows)
    return fig


def _draw_parts(axes: Any, result: Result) -> list[dict[str, Any]]:
    """Stack the parts of each allocator; return what was drawn."""
    memory = result.data["memory"]
    parts = memory[memory["load"] == "sharegpt"].groupby(["allocator", "part"])
    shares = parts[["share_of_all", "share_of_allocated"]].mean()
    rows = []
    for at, allocator in enumerate(ALLOCATOR_NAMES):
        tops = dict.fromkeys(_SIDES, 0.0)
        for number, (part, name) in enumerate(_PARTS.items()):
            claim = f"vllm-fig2-{allocator}-{name}"
            heights = {
                "measured": 100 * float(shares.at[(allocator, part), _share_drawn(allocator)]),
                "paper": find_claim(claim).value if claim in _FIG2 else 0.0,
            }
            for source, height in heights.items():
                if not height > 0:
                    continue
                bar = _draw_bar(axes, at, height, source, look(number).color, tops[source])
                if at == 0 and source == "measured":
                    bar.set_label(part.replace("_", " "))
                tops[source] += height
                rows.append(
                    {
                        "panel": "memory",
                        "allocator": allocator,
                        "part": part,
                        "source": source,
                        "value": height,
                    }
                )
    axes.set(ylabel="share of KV memory (%)", ylim=(0, 100), title="KV memory, ShareGPT")
    _name_allocators(axes)
    axes.get_figure().legend(loc="outside lower center", ncols=4)
    said = "paler bars: the paper's, which of vLLM's memory gives the token states alone"
    axes.get_figure().suptitle(said, x=1, ha="right", fontsize="small")
    return rows


def _draw_batched(axes: Any, result: Result, load: str, title: str) -> list[dict[str, Any]]:
    """Draw the requests that ran at once, on average; a black line spans the seeds."""
    batched = result.data["batched"]
    running = batched[batched["load"] == load].groupby("allocator")["num_running"]
    rows = []
    for at, allocator in enumerate(ALLOCATOR_NAMES):
        seeds = running.get_group(allocator)
        published = find_claim(f"vllm-fig13-{load}-{allocator}").value
        for source, value, top in (
            ("measured", float(seeds.mean()), float(seeds.max())),
            ("paper", published, published),
        ):
            _draw_bar(axes, at, value, source, look(0).color)
            place = at + _SIDES[source][0]
            text = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
            axes.annotate(
                text, (place, top), (0, 1), textcoords="offset points", ha="center", fontsize=6.5
            )
            rows.append({"panel": load, "allocator": allocator, "source": source, "value": value})
        axes.vlines(at + _SIDES["measured"][0], seeds.min(), seeds.max(), color="black", lw=1)
    axes.set(ylabel="requests that run at once", title=title)
    axes.margins(y=0.1)
    _name_allocators(axes)
    return rows


def _draw_bar(
    axes: Any, at: int, height: float, source: str, colour: str, bottom: float = 0.0
) -> Any:
    """Draw one bar of an allocator: what was measured, or the paper's, to the right and paler."""
    place, alpha = _SIDES[source]
    return axes.bar(at + place, height, 0.38, bottom=bottom, color=colour, alpha=alpha)


def _name_allocators(axes: Any) -> None:
    names = [name.replace(" ", "\n") for name in ALLOCATOR_NAMES.values()]
    axes.set_xticks(range(len(ALLOCATOR_NAMES)), names, fontsize="x-small")
    axes.grid(axis="x", visible=False)
