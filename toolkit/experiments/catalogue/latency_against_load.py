"""How many requests per second each way of giving out memory sustains: vLLM's figure 12.

Kwon et al. 2023 (PagedAttention), section 6.2: normalized latency (end-to-end time per output
token, averaged over requests) against the rate of a Poisson load, OPT-13B on an A100-40GB. Where
the curve turns up the queue no longer empties; the rates at which two systems reach the same
latency are compared. The limit of 0.5 s per token is ours: the paper reads its ratios "at similar
latencies".

What is the paper's and what is not: see ``where_the_memory_goes``, whose machine and loads these
are. A queue that grows needs time to: in a load of T seconds at x times what a system sustains, the
mean wait is about T / 2 (1 - 1/x). So what is waited for in a load that is shorter than the paper's
hour has a limit that is as much shorter.

A few long outputs move a knee, so each ratio is the mean of several seeds, and the verdict says how
they scatter. Only rates around the paper's knees are tried: a system whose knee lies elsewhere has
none here, and what needs it is not measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size, means
from toolkit.experiments.catalogue.where_the_memory_goes import ENGINE_OF_2023
from toolkit.experiments.claims.table import ALLOCATOR_NAMES
from toolkit.experiments.plots import PAPER_COLOUR, DataFigure, figure, look, style
from toolkit.experiments.studies.sweeping import sweep
from toolkit.experiments.workloads.arrivals import Poisson
from toolkit.experiments.workloads.surrogates import Alpaca, ShareGPT
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, progress_bar

__all__ = ["CLAIMS", "LIMIT_S", "TITLE", "knee", "knee_table", "plot", "run"]

TITLE = "How much load does each way of giving out memory sustain?"
# By claim, whose rate it is that paging's is divided by.
_OVER = {"vllm-fig12-over-max": "orca-max", "vllm-fig12-over-oracle": "orca-oracle"}
CLAIMS = tuple(_OVER)
LIMIT_S = 0.5  # of normalized latency, s per output token, in a load of an hour

# Where the paper's curves turn up, requests/s, read off its plots: good to a tick of the axis.
_KNEES = {
    "sharegpt": {"orca-max": 0.5, "orca-pow2": 0.75, "orca-oracle": 1.1, "paged": 1.9},
    "alpaca": {"orca-max": 7.0, "orca-pow2": 13.0, "orca-oracle": 20.0, "paged": 28.0},
}
_LENGTHS = {"sharegpt": ShareGPT, "alpaca": Alpaca}
# Rates that are tried, in parts of the paper's knee.
_FACTORS = {
    "quick": (0.7, 1.0, 1.3, 1.6),
    "paper": (0.5, 0.7, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8),
}
_HOUR_S = 3600.0
_DURATIONS_S = {"quick": {"sharegpt": 100.0}, "paper": {"sharegpt": _HOUR_S, "alpaca": _HOUR_S}}
_NUM_SEEDS = 3


def run(
    size: str = "quick", *, progress: bool | None = None, seed: int = 0, processes: int = 1
) -> Result:
    """Serve both loads at rates below and above each allocator's knee.

    Args:
        size: "quick" (100 s of ShareGPT at four rates) or "paper" (an hour of ShareGPT and of
            Alpaca at ten).
        progress: Whether to show a bar.
        seed: The first of three; all allocators get the same requests.
        processes: Simulations at a time.

    Returns:
        Tables ``curves`` (load, allocator, rate, seed, normalized latency and its limit, both in s
        per token) and ``knees`` (load, allocator, seed, the rate at which it reaches the limit,
        that limit, the paper's rate).
    """
    check_size(size)
    machine = Machine("opt-13b", "A100-40GB")
    durations_s = _DURATIONS_S[size]
    cells = [(load, allocator) for load in durations_s for allocator in ALLOCATOR_NAMES]
    curves, knees = [], []
    with progress_bar(len(cells), "Latency against load", unit="run", progress=progress) as bar:
        for load, allocator in cells:
            middle = _KNEES[load][allocator]
            w = Workload(
                Poisson(middle),
                _LENGTHS[load](),
                num_requests=round(middle * durations_s[load]),
                seed=seed,
            )
            rows = sweep(
                w,
                on=machine,
                rate=[middle * factor for factor in _FACTORS[size]],
                seeds=range(seed, seed + _NUM_SEEDS),
                processes=processes,
                progress=False,
                allocator=allocator,
                **ENGINE_OF_2023,
            )
            for drawn, curve in rows.groupby("seed"):
                cell = {"load": load, "allocator": allocator}
                found = curve[["rate", "seed", "norm_latency_s_mean"]].assign(**cell)
                limit_s = _Limit(float(found["norm_latency_s_mean"].min()), w.num_requests)
                curves.append(found.assign(limit_s=limit_s(found["rate"])))
                at = knee(found["rate"], found["norm_latency_s_mean"] / curves[-1]["limit_s"], 1.0)
                knees.append(
                    {**cell, "seed": drawn, "rate": at, "limit_s": limit_s(at)}
                    | {"paper_rate": middle}
                )
            bar.update()
    data = {"curves": pd.concat(curves, ignore_index=True), "knees": pd.DataFrame(knees)}
    samples = _samples(data["knees"])
    reasons = {claim: _reason(claim, data["knees"], _FACTORS[size]) for claim in CLAIMS}
    return Result(
        "latency_against_load", size, data, means(samples), reasons, seed, samples=samples
    )


def knee(rates: Sequence[float], latencies_s: Sequence[float], limit_s: float) -> float:
    """Return the first rate at which a curve rises through a limit, NaN where it does not.

    Between two rates the logarithm of the latency is taken to be a straight line.

    >>> knee([1, 2, 3], [0.1, 0.1, 10.0], limit_s=1.0)
    2.5
    """
    logs = np.log(np.asarray(latencies_s, dtype=float)) - math.log(limit_s)
    rates = np.asarray(rates, dtype=float)
    for at in range(len(rates) - 1):
        if logs[at] <= 0 < logs[at + 1]:
            part = -logs[at] / (logs[at + 1] - logs[at])
            return float(rates[at] + part * (rates[at + 1] - rates[at]))
    return math.nan


class _Limit(NamedTuple):
    """Of normalized latency, s per token, by the rate of a load of so many requests."""

    calm_s: float  # the curve's lowest latency, which is taken to be without a wait
    num_requests: int

    def __call__(self, rate: Any) -> Any:
        """Return the limit: what is waited for may be as much less as the load is shorter."""
        return self.calm_s + (LIMIT_S - self.calm_s) * (self.num_requests / rate) / _HOUR_S


def knee_table(result: Result) -> pd.DataFrame:
    """Return for reading the rate at which each seed's curve passes its limit, beside the paper's.

    "> 1.2": up to that rate, the highest that was tried, it does not; "< 0.3": it is above from the
    lowest on.
    """
    knees, curves = result.data["knees"], result.data["curves"]
    tried = dict(list(curves.groupby(["load", "allocator", "seed"])))
    said = [
        _passed(row["rate"], tried[row["load"], row["allocator"], row["seed"]])
        for row in knees.to_dict("records")
    ]
    told = knees.assign(allocator=knees["allocator"].map(ALLOCATOR_NAMES), said=said)
    table = told.pivot(index=["load", "allocator"], columns="seed", values="said")
    table.columns = [f"seed {seed}" for seed in table.columns]
    rows = told.drop_duplicates(["load", "allocator"]).set_index(["load", "allocator"])
    return table.loc[rows.index].assign(paper=rows["paper_rate"])


def _passed(rate: float, curve: pd.DataFrame) -> str:
    if not math.isnan(rate):
        return f"{rate:.2f}"
    is_below = bool((curve["norm_latency_s_mean"] <= curve["limit_s"]).all())
    return f"> {curve['rate'].max():.3g}" if is_below else f"< {curve['rate'].min():.3g}"


def _reason(claim: str, knees: pd.DataFrame, factors: Sequence[float]) -> str:
    """Say what a ratio is of, and which of the two has no knee where one was looked for."""
    said = "rates at the limit, OPT-13B and ShareGPT alone; the paper's range is over three models"
    is_of = (knees["load"] == "sharegpt") & knees["allocator"].isin(["paged", _OVER[claim]])
    lacking = knees[is_of & knees["rate"].isna()]["allocator"].unique()
    if not len(lacking):
        return said
    return (
        f"{', '.join(map(ALLOCATOR_NAMES.__getitem__, lacking))}: no knee from {min(factors):g} to "
        f"{max(factors):g} times the paper's; {said}"
    )


def _samples(knees: pd.DataFrame) -> dict[str, list[float]]:
    """Return by claim the ratio of rates that each seed came to; NaN where a knee lacks."""
    rates = knees[knees["load"] == "sharegpt"].pivot(
        index="seed", columns="allocator", values="rate"
    )
    return {claim: (rates["paged"] / rates[name]).tolist() for claim, name in _OVER.items()}


def plot(result: Result) -> DataFigure:
    """Draw a curve per allocator and its limit, a cross at each seed's knee, a tick at the paper's.

    Curves and limits are means over the seeds.
    """
    curves, knees = result.data["curves"], result.data["knees"]
    loads = list(curves["load"].unique())
    with style():
        fig = figure(width_in=3.6 * len(loads), height_in=3.1)
        for axes, load in zip(fig.subplots(1, len(loads), squeeze=False)[0], loads, strict=True):
            for number, (allocator, name) in enumerate(ALLOCATOR_NAMES.items()):
                rows = curves[(curves["load"] == load) & (curves["allocator"] == allocator)]
                line = rows.groupby("rate")["norm_latency_s_mean"].mean()
                axes.plot(line.index, line, label=name, **look(number)._asdict())
                at = knees[(knees["load"] == load) & (knees["allocator"] == allocator)]
                axes.plot(at["rate"], at["limit_s"], "x", color=look(number).color, markersize=6)
                axes.axvline(at["paper_rate"].iloc[0], 0, 0.06, color=look(number).color, lw=2)
                limits = rows.groupby("rate")["limit_s"].mean()
                axes.plot(limits.index, limits, color=look(number).color, lw=0.8, alpha=0.6)
            axes.set(
                title=f"OPT-13B, {_TITLES[load]}, simulated",
                xlabel="offered load (requests/s)",
                ylabel="normalized latency (s/token)",
                ylim=(0, 2 * knees["limit_s"].max()),
                xlim=(0, None),
            )
        axes.plot([], [], color=PAPER_COLOUR, lw=0.8, alpha=0.6, label="its limit")
        for mark, name in (("x", "a seed's curve passes it"), ("|", "turns up in the paper")):
            axes.plot([], [], mark, color=PAPER_COLOUR, markersize=8, label=name)
        handles, names = axes.get_legend_handles_labels()
        fig.legend(handles, names, loc="outside lower center", ncols=2 * len(loads))
        fig.data = curves.merge(
            knees.rename(columns={"rate": "knee_rate"}), on=["load", "allocator", "seed"]
        )
    return fig


_TITLES = {"sharegpt": "ShareGPT", "alpaca": "Alpaca"}
