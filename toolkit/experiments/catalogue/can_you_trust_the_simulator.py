"""Can you trust the simulator? On this machine, against the real engine.

Two questions, asked apart. Does the simulator schedule as the engine does? Given the durations of a
real run's steps it must come out identical, chunk by chunk. And does its cost model know how long a
step takes? It is fitted to a load of lengths of all kinds, whose rate rises until the engine is
full, and then predicts loads that it has not seen, of other lengths and under another policy, at
70 % and 85 % of what the engine can take. Vidur (Agrawal et al., MLSys 2024) claims errors below
9 %.

The engine is real, so figures depend on the machine, and on what else it does meanwhile. A machine
whose speed changes between a fit and what is predicted from it says nothing of the simulator: so
the load to fit runs before, between and after the others, and how far the fits of these runs are
apart is a result of its own. Where it is more than the error that is claimed, or requests were
handed over late, errors are in the tables and in the figure, but no claim is judged by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size, means
from toolkit.experiments.claims.table import find_claim
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.running import run as run_workload
from toolkit.experiments.runs.saturation import Saturation
from toolkit.experiments.workloads.arrivals import AtOnce, Poisson, Ramp
from toolkit.experiments.workloads.lengths import Lengths, Uniform
from toolkit.experiments.workloads.workload import Workload
from toolkit.record import Record
from toolkit.simulate import FittedCost, fit, identity, predicted_steps, progress_bar, twin

__all__ = ["CLAIMS", "TITLE", "plot", "run"]

TITLE = "Can you trust the simulator?"
_QUANTILES = {"vidur-mean-error": "mean", "vidur-p90-error": "p90"}
CLAIMS = ("vidur-identity", *_QUANTILES)

FIT_LENGTHS = Uniform((8, 320), (8, 96))
CHECK_LENGTHS = Uniform((96, 256), (8, 48))
CHECK_POLICY = "shortest-first"
SHARES = (0.70, 0.85)  # of the rate at which the engine is full
_RAMP = (0.1, 1.1)  # of the same, for the load that is fitted to
_FIT_SECONDS = {"quick": 4.0, "paper": 40.0}  # of each of the ramps
_CHECK_SECONDS = {"quick": 8.0, "paper": 80.0}  # of each predicted load
_LABELS = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "e2e_s": "E2E",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "tokens/s",
}
_BOUND_PERCENT = 9.0  # of Vidur's errors
_MOST_STEPS = 2_000  # points of the scatter plot


def run(
    size: str = "quick", *, progress: bool | None = None, seed: int = 0, llm: Any = None
) -> Result:
    """Run loads on a real engine, fit to some of them, and predict two others.

    Args:
        size: "quick" for loads of some seconds, "paper" for a minute or more each.
        progress: Whether to show bars; None shows them where somebody looks on.
        seed: Of the loads.
        llm: Whose engine is used; by default a new one of the bundled model. Its journal must reach
            back to its first request.

    Raises:
        InvalidConfig: there is no such size.
        RecordError: something else ran on the engine, so that its run is no load.
    """
    check_size(size)
    num_loads = 3 + 2 * len(SHARES)
    with (
        _bundled() if llm is None else nullcontext(llm) as model,
        progress_bar(num_loads, "Fit and check", unit="load", progress=progress) as bar,
    ):
        full_rate = _full_rate(model, FIT_LENGTHS, seed, progress)
        bar.update()
        start, end = (share * full_rate for share in _RAMP)

        def ramp(number: int) -> Record:
            load = _load(Ramp(start, end), FIT_LENGTHS, _FIT_SECONDS[size], seed + number)
            record = _record_of(run_workload(load, on=model, progress=progress))
            bar.update()
            return record

        ramps = [ramp(1)]
        schedule = identity(model.engine.record).table
        full_rate = _full_rate(model, CHECK_LENGTHS, seed + 2, progress)
        bar.update()
        checks = []
        for number, share in enumerate(SHARES):
            rate, own_seed = share * full_rate, seed + 3 + number
            load = _load(Poisson(rate), CHECK_LENGTHS, _CHECK_SECONDS[size], own_seed)
            checked = run_workload(load, on=model, policy=CHECK_POLICY, progress=progress)
            checks.append(_Check(share, rate, _record_of(checked), checked.saturation))
            bar.update()
            ramps.append(ramp(10 + number))
    return _result(size, seed, schedule, ramps, checks)


class _Check(NamedTuple):
    """A load to predict, as it was."""

    share: float  # of the rate at which the engine is full
    rate: float  # requests per second
    record: Record
    saturation: Saturation | None


def _result(
    size: str, seed: int, schedule: pd.DataFrame, ramps: list[Record], checks: list[_Check]
) -> Result:
    cost = fit(ramps)
    errors, steps = [], []
    for share, rate, record, _ in checks:
        found = twin(record, cost_model=cost).errors.reset_index()
        errors.append(found.assign(share=share, rate=rate, policy=CHECK_POLICY))
        steps.append(predicted_steps(record, cost).assign(share=share))
    table = pd.concat(errors, ignore_index=True)
    drift = _drift([fit(each) for each in ramps], checks)
    busy = _busy(float(drift["slower"].max()), {check.share: check.saturation for check in checks})
    samples = {
        claim: [_largest(table, quantile)]
        for claim, quantile in _QUANTILES.items()
        if claim not in busy
    }
    return Result(
        name="can_you_trust_the_simulator",
        size=size,
        data={
            "errors": table,
            "steps": _thinned(pd.concat(steps, ignore_index=True)),
            "coefficients": cost.table.reset_index(),
            "identity": schedule.reset_index(),
            "drift": drift,
        },
        measured={
            "vidur-identity": 100 * float((schedule["identical"] / schedule["rows"]).min()),
            **means(samples),
        },
        reasons=_reasons(table, cost, drift) | busy,
        seed=seed,
        samples=samples,
    )


def plot(result: Result) -> Any:
    """Draw each step's predicted against its measured duration, and the error of every figure."""
    from toolkit.experiments import plots  # matplotlib comes with an extra

    steps, errors = result.data["steps"], result.data["errors"]
    with plots.style():
        figure = plots.figure(height_in=3.4, width_in=7.0)
        left, right = figure.subplots(1, 2)
        both = 1e3 * steps[["measured_s", "predicted_s"]].to_numpy()
        ends = [both.min(), both.max()]
        left.plot(ends, ends, color="#888888", linewidth=0.8, linestyle=":")
        for index, (share, own) in enumerate(steps.groupby("share")):
            left.scatter(
                1e3 * own["measured_s"],
                1e3 * own["predicted_s"],
                s=3,
                alpha=0.4,
                color=plots.COLOURS[index],
                rasterized=True,
            )
            _draw_errors(right, errors[errors["share"] == share], index, plots.COLOURS[index])
        left.set(xscale="log", yscale="log")
        plots.plain_ticks(left.xaxis)
        plots.plain_ticks(left.yaxis)
        left.set_xlabel("step, measured (ms)")
        left.set_ylabel("step, predicted (ms)")
        left.set_title("Steps")
        right.axvspan(
            -_BOUND_PERCENT,
            _BOUND_PERCENT,
            color=plots.PAPER_COLOUR,
            alpha=0.15,
            linewidth=0,
            label=f"within {_BOUND_PERCENT:g} %, as Vidur claims",
        )
        right.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
        right.set_xlabel("error of the prediction (%)")
        right.invert_yaxis()
        right.set_title("What requests see")
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.data = errors
    return figure


def _bundled() -> Any:
    from toolkit.llm import LLM  # loads torch, which drawing a saved result does not need

    return LLM()


def _load(arrivals: Any, lengths: Lengths, seconds: float, seed: int) -> Workload:
    """Return a load of about that many seconds."""
    num_requests = max(20, round(arrivals.rate * seconds))
    return Workload(arrivals, lengths, num_requests=num_requests, seed=seed)


def _full_rate(model: Any, lengths: Lengths, seed: int, progress: bool | None) -> float:
    """Return the requests per second that an engine serves while its line is never empty."""
    num_seqs = model.engine.config.scheduler.max_num_seqs
    load = Workload(AtOnce(), lengths, num_requests=4 * num_seqs, seed=seed)
    ends = np.sort(run_workload(load, on=model, progress=progress).requests["finished_s"])
    # From the first quarter's end to the last quarter's beginning the batch is full.
    first, last = len(ends) // 4, 3 * len(ends) // 4
    return float((last - first) / (ends[last] - ends[first]))


def _record_of(run: Run) -> Record:
    assert run.record is not None  # an engine of this process keeps one
    return run.record


def _largest(errors: pd.DataFrame, quantile: str) -> float:
    return 100 * float(errors.loc[errors["quantile"] == quantile, "error"].abs().max())


def _drift(costs: list[FittedCost], checks: list[_Check]) -> pd.DataFrame:
    """Return how long each ramp alone says that the checked steps take, in parts of the fastest.

    A row per ramp and load; the column ``slower`` is 0 for the fastest. Of a machine that keeps its
    speed all rows are near 0.
    """
    rows = []
    for check in checks:
        for number, cost in enumerate(costs):
            seconds = predicted_steps(check.record, cost)["predicted_s"].sum()
            rows.append({"ramp": number, "share": check.share, "seconds": seconds})
    table = pd.DataFrame(rows)
    table["slower"] = table["seconds"] / table.groupby("share")["seconds"].transform("min") - 1
    return table


def _reasons(errors: pd.DataFrame, cost: FittedCost, drift: pd.DataFrame) -> dict[str, str]:
    """Say which figure is the worst one, how far off single steps are, and how fits differ."""
    said = {}
    for claim, quantile in _QUANTILES.items():
        own = errors[errors["quantile"] == quantile]
        worst = own.loc[own["error"].abs().idxmax()]
        said[claim] = (
            f"{_LABELS[worst['metric']]} is the worst, at {worst['share']:.0%} of capacity; "
            f"a step is {cost.held_out_error:.1%} off on average; "
            f"fits before, between and after the loads differ by up to {drift['slower'].max():.1%}"
        )
    return said


def _busy(drift: float, saturations: Mapping[float, Saturation | None]) -> dict[str, str]:
    """Return by claim what shows that the machine was too busy to judge it; none if nothing does.

    Args:
        drift: How much slower than the fastest a fit finds the same steps, in parts.
        saturations: Whether the client kept up, by the share of what the engine can take.
    """
    late = [
        f"the client was late at {share:.0%} of capacity"
        for share, watched in saturations.items()
        if watched is not None and watched.is_saturated
    ]
    found = {}
    for claim in _QUANTILES:
        _, most = find_claim(claim).bounds
        drifted = [
            f"fits before, between and after the loads differ by {drift:.1%}, which is more than "
            f"the {most:g} % that are claimed"
        ]
        causes = late + (drifted if 100 * drift > most else [])
        if causes:
            found[claim] = f"machine busy: {', and '.join(causes)}"
    return found


def _thinned(steps: pd.DataFrame) -> pd.DataFrame:
    """Return every n-th step, so that a figure has no more than it can show."""
    return steps.iloc[:: 1 + len(steps) // _MOST_STEPS].reset_index(drop=True)


def _draw_errors(axes: Any, errors: pd.DataFrame, index: int, colour: str) -> None:
    quantiles = errors["quantile"].str.replace("p", "P")
    labels = [
        _LABELS[metric] if metric.endswith("_per_s") else f"{_LABELS[metric]} {quantile}"
        for metric, quantile in zip(errors["metric"], quantiles, strict=True)
    ]
    places = np.arange(len(errors)) + 0.3 * (index - 0.5)
    name = f"{errors['share'].iloc[0]:.0%} of capacity"
    axes.scatter(100 * errors["error"], places, s=14, color=colour, zorder=3, label=name)
    axes.set_yticks(range(len(errors)), labels)
