"""One engine, nine results: what each mistake of a benchmark does to the numbers that it reports.

The same simulated machine serves the same load again and again, and each time one thing about the
benchmark is done as it often is. A simulation makes that exact: nothing else changes. What counts
as honest: open loop, Poisson arrivals, lengths that vary, prompts that the cache has not seen,
times from when a request was due, enough requests for the percentile. What another draw of the same
load does to the honest numbers is measured too: an arrow that is no longer than that says nothing.

Sizes that others found of the same mistakes: a warm cache raised throughput by up to 86 %
(vllm-project/vllm #52884), and counting from when a limited client came round to sending turned a
P99 of 3,330 ms into 508 ms (#54101). They are of other machines and loads, and which way such a
mistake points is arithmetic, so no claim is judged here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size
from toolkit.experiments.plots import PAPER_COLOUR, DataFigure, figure, look, plain_ticks, style
from toolkit.experiments.runs.recorded import run_of_record
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.running import run as run_workload
from toolkit.experiments.workloads.arrivals import Closed, Constant, Poisson
from toolkit.experiments.workloads.lengths import Fixed
from toolkit.experiments.workloads.surrogates import DistServeShareGPT
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, drive, progress_bar

__all__ = ["CLAIMS", "TITLE", "plot", "run"]

TITLE = "How do benchmarks lie?"
CLAIMS: tuple[str, ...] = ()

_RATE = 26.0  # requests/s: about five sixths of what the machine sustains
_HEADROOM = 1.15  # of a limited client, over the requests that are under way on average
_FEW = 100
_NUM_WARM = 500  # prompts that the cache holds all at once
# By MLPerf's rule a P90 needs 23,886 requests and a P99 262,742: neither size has enough for one.
_NUM_REQUESTS = {"quick": 500, "paper": 24_000}
_NUM_SEEDS = 3  # of the honest load


@dataclass(frozen=True)
class _Bench:
    """The machine and the honest load, from which every mistake departs."""

    machine: Machine
    num_requests: int
    seed: int

    @cached_property
    def honest(self) -> Run:
        """What everything else is compared with."""
        return self.serve(self.load())

    @cached_property
    def limited(self) -> Run:
        """What a client that keeps few under way makes of the honest load.

        It sends when one ends, as an engine lets the next one in: so a limit of the engine's, under
        first come, first served, is the client's limit.
        """
        return self.serve(self.load(), max_num_seqs=round(_HEADROOM * self.num_under_way))

    @property
    def num_under_way(self) -> float:
        """Requests in the system, on average over the honest run."""
        requests = self.honest.requests
        seconds = requests["last_token_s"].max() - requests["scheduled_s"].min()
        return float(requests["e2e_s"].sum() / seconds)

    def load(self, arrivals: Any = None, lengths: Any = None, num_requests: int = 0) -> Workload:
        return Workload(
            arrivals or Poisson(_RATE),
            lengths or DistServeShareGPT(),
            num_requests=num_requests or self.num_requests,
            seed=self.seed,
        )

    def serve(self, w: Workload, **options: Any) -> Run:
        return run_workload(w, self.machine, progress=False, **options)


def run(size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
    """Measure the same machine honestly, and in eight other ways.

    Args:
        size: "quick" (500 requests) or "paper" (24,000; the P99 is the 240th worst of them).
        progress: Whether to show a bar.
        seed: Of the loads; of the honest one it is the first of three.

    Returns:
        Table ``results``: mistake, what was done, the TTFT that is reported in s (of the last of
        them a mean, of all others the P99), output tokens/s, and both in parts of the honest ones.
        Table ``seeds``: seed, and the same two numbers of the honest measurement.
    """
    check_size(size)
    bench = _Bench(Machine("llama-3-8b", "H200"), _NUM_REQUESTS[size], seed)
    rows = []
    total = len(_WAYS) + _NUM_SEEDS - 1
    with progress_bar(total, "Benchmarks", unit="run", progress=progress) as bar:
        for name, (told, measure) in _WAYS.items():
            ttft_s, tokens_per_s = measure(bench)
            rows.append(
                {
                    "mistake": name,
                    "what": told,
                    "ttft_s": ttft_s,
                    "output_tokens_per_s": tokens_per_s,
                }
            )
            bar.update()
        drawn = [(seed, *_numbers(bench.honest))]
        for other in range(seed + 1, seed + _NUM_SEEDS):
            drawn.append((other, *_honest(replace(bench, seed=other))))
            bar.update()
    results = pd.DataFrame(rows)
    seeds = pd.DataFrame(drawn, columns=["seed", "ttft_s", "output_tokens_per_s"])
    for column in ("ttft_s", "output_tokens_per_s"):
        results[f"{column}_by_honest"] = results[column] / results[column].iloc[0]
    data = {"results": results, "seeds": seeds}
    return Result("how_benchmarks_lie", size, data, measured={}, seed=seed)


def _numbers(done: Run) -> tuple[float, float]:
    """Return the P99 of the TTFT in s, and output tokens/s over the whole run."""
    requests = done.requests
    seconds = requests["last_token_s"].max() - requests["scheduled_s"].min()
    p99_s = np.percentile(requests["ttft_s"].dropna(), 99)
    return float(p99_s), float(requests["num_output_tokens"].sum() / seconds)


def _honest(bench: _Bench) -> tuple[float, float]:
    return _numbers(bench.honest)


def _warm_cache(bench: _Bench) -> tuple[float, float]:
    """Ask few prompts of an engine, then the load's number of requests, each one of those prompts.

    As many requests are reported as of the honest load, for the P99 of fewer is another number.
    """
    w = bench.load()
    engine = bench.machine.engine()
    prompts = [
        arrival._replace(prompt_token_ids=w.prompt_token_ids(arrival.arrival_id, 128_000))
        for arrival in islice(w.arrivals(), _NUM_WARM)
    ]
    drive(engine, prompts, progress=False)
    first_end_s = engine.clock.now()
    again = [
        known._replace(arrival_id=arrival.arrival_id, due_s=arrival.due_s + first_end_s)
        for arrival, known in zip(w.arrivals(), cycle(prompts), strict=False)
    ]
    ids = drive(engine, again, progress=False)
    done = run_of_record(engine.record, ids, w, start_s=first_end_s)
    return _numbers(done)


def _from_sending(bench: _Bench) -> tuple[float, float]:
    """Count from when a limited client came round to sending: when a request first runs."""
    assert bench.limited.record is not None
    table = bench.limited.record.requests
    p99_s = float(np.percentile(table["first_token_s"] - table["first_scheduled_s"], 99))
    return p99_s, _numbers(bench.limited)[1]


def _from_due(bench: _Bench) -> tuple[float, float]:
    return _numbers(bench.limited)


def _closed(bench: _Bench) -> tuple[float, float]:
    """As many clients as are under way on average, each asking when it has its answer."""
    return _numbers(bench.serve(bench.load(Closed(round(bench.num_under_way)))))


def _few(bench: _Bench) -> tuple[float, float]:
    return _numbers(bench.serve(bench.load(num_requests=_FEW)))


def _constant(bench: _Bench) -> tuple[float, float]:
    return _numbers(bench.serve(bench.load(Constant(_RATE))))


def _one_length(bench: _Bench) -> tuple[float, float]:
    table = bench.load().table
    means = [round(float(table[f"num_{way}_tokens"].mean())) for way in ("prompt", "output")]
    return _numbers(bench.serve(bench.load(lengths=Fixed(*means))))


def _mean(bench: _Bench) -> tuple[float, float]:
    return float(bench.honest.requests["ttft_s"].mean()), _numbers(bench.honest)[1]


_WAYS: dict[str, tuple[str, Callable[[_Bench], tuple[float, float]]]] = {
    "honest": ("open loop, times from when a request was due, P99", _honest),
    "warm cache": ("the same prompts were asked before", _warm_cache),
    "counted from sending": (
        "a client that keeps few under way; times from when it sends",
        _from_sending,
    ),
    "client limit, all counted": (
        "the same run, times from when a request was due",
        _from_due,
    ),
    "closed loop": ("as many clients as there are requests under way", _closed),
    "few requests": (f"{_FEW} requests, and a P99 of them", _few),
    "even arrivals": ("the same rate, a request every so often", _constant),
    "one length": ("the mean prompt and the mean output, each time", _one_length),
    "a mean": ("the mean TTFT, not its P99", _mean),
}


def plot(result: Result) -> DataFigure:
    """Draw an arrow from the honest result to each of the others, for latency and throughput.

    The band behind the honest one is what other seeds make of it.
    """
    results, seeds = result.data["results"], result.data["seeds"]
    others = results.iloc[1:].reset_index(drop=True)
    with style():
        fig = figure(width_in=7.0, height_in=2.9)
        left, right = fig.subplots(1, 2, sharey=True, width_ratios=(1.4, 1))
        for axes, column, label in (
            (left, "ttft_s", "TTFT that is reported (s, log)"),
            (right, "output_tokens_per_s", "output tokens/s that are reported"),
        ):
            honest = float(results[column].iloc[0])
            axes.axvspan(
                seeds[column].min(), seeds[column].max(), color=PAPER_COLOUR, alpha=0.15, lw=0
            )
            axes.axvline(honest, color=PAPER_COLOUR, linewidth=1)
            for at, value in enumerate(others[column]):
                axes.annotate(
                    "",
                    xy=(value, at),
                    xytext=(honest, at),
                    arrowprops={"arrowstyle": "-|>", "color": look(1).color, "linewidth": 1.6},
                )
                axes.plot(value, at, "o", color=look(1).color, markersize=3)
            axes.set(xlabel=label)
        left.set_xscale("log")
        plain_ticks(left.xaxis)
        left.set_yticks(range(len(others)), others["mistake"])
        left.invert_yaxis()
        left.set_title(f"One engine, {len(results)} results (line: honest; band: its seeds)")
        fig.data = results
    return fig
