"""The highest rate that a system serves within limits, found by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.metrics import attainment as attainment_of
from toolkit.experiments.metrics import queue_growth, steady_window
from toolkit.experiments.studies.cells import at_rate, whole_run
from toolkit.html_table import rows_html
from toolkit.record.limits import check_limits
from toolkit.simulate.progress import progress_bar

if TYPE_CHECKING:
    from toolkit.experiments.runs.results import Run
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["Capacity", "capacity"]

_MOST_DOUBLINGS = 8
_LEAST_GROWTH = 0.02  # of what arrives; less is no growing queue
_MOST_GROWTH = 0.05  # of what arrives; a load that cannot exclude this is too short
_CHANCE = 3.0  # standard errors, since one wrong probe misleads the whole search


@dataclass(frozen=True, slots=True, repr=False)
class Capacity:
    """The highest rate that held, and every rate that was tried.

    ``table`` has a row per probe: rate, attainment (NaN where a function judged), growth (share of
    the arrivals by which the queue grew; NaN where that cannot be said), holds, is_told (False
    where the load was too short to say whether it holds), reason. ``below`` is the lowest rate that
    certainly does not hold, infinite if none was found, and ``reason`` says why.
    """

    rate: float
    below: float
    table: pd.DataFrame
    reason: str

    def __repr__(self) -> str:
        untold = self.table[~self.table["is_told"] & (self.table["rate"] < self.below)]
        more = f"{untold['reason'].iloc[0]}: give more requests" if len(untold) else ""
        if self.below == math.inf:
            why = more or "no higher rate was tried"
            return f"Capacity: at least {self.rate:.4g} requests/s; above that {why}"
        if more:
            return (
                f"Capacity: {self.rate:.4g} to {self.below:.4g} requests/s, where {self.reason}; "
                f"in between {more}"
            )
        return f"Capacity: {self.rate:.4g} requests/s; above that {self.reason}"

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{row.rate:.4g}",
                "" if math.isnan(row.attainment) else f"{100 * row.attainment:.1f} %",
                "" if math.isnan(row.growth) else f"{100 * row.growth:+.1f} %",
                ("yes" if row.holds else "no") if row.is_told else "cannot be told",
                row.reason,
            )
            for row in self.table.sort_values("rate").itertuples()
        ]
        columns = ["requests/s", "attainment", "queue growth", "holds", "why not"]
        return rows_html(columns, rows, note=repr(self))


def capacity(
    w: Workload,
    on: Any,
    *,
    slo: Mapping[str, float] | Callable[[Run], bool],
    attainment: float = 0.9,
    start: float | None = None,
    tolerance: float = 0.03,
    progress: bool | None = None,
    **options: Any,
) -> Capacity:
    """Return the highest rate at which limits hold and the queue does not grow.

    The rate is doubled or halved until one holds and another does not, and the gap between them
    then halved. Every probe asks for the same requests, only closer together (common random
    numbers), so that a higher rate is a heavier load and nothing else.

    A queue grows when more arrives than is served: by 2 % of what arrives at least, and by more
    than chance, three standard errors of ``queue_growth``. A load that is too short to exclude a
    growth of 5 % proves nothing, and its rate counts as one that does not hold; then the result
    says so. A thousand requests are enough for most systems; one that serves many at a time
    needs many times as many requests.

    Args:
        w: The load; only its rate varies.
        on: What serves it, as ``run`` takes it.
        slo: Limits by metric, as ``{"ttft_s": 1.0}``, or a function that says of a run whether it
            holds.
        attainment: The share of requests that must keep all limits.
        start: The first rate; by default the workload's own.
        tolerance: How far apart the last two rates may be, as a share.
        progress: Whether to show a bar; None shows it where it takes long and somebody looks on.
        options: Of every run.

    Raises:
        KeyboardInterrupt: as soon as one probe was interrupted.
        InvalidConfig: a share out of range, or a load without a rate to vary.
        InvalidParameter: an unknown limit.
    """
    if not 0 < attainment <= 1 or not 0 < tolerance < 1:
        raise InvalidConfig(
            f"attainment={attainment} and tolerance={tolerance} must be shares, above 0"
        )
    limits = slo if callable(slo) else check_limits(slo)
    probes: list[dict[str, Any]] = []
    with progress_bar(None, "Capacity", unit="probe", progress=progress) as bar:

        def holds(rate: float) -> bool:
            done = whole_run(at_rate(w, rate), on=on, progress=False, **options)
            probes.append({"rate": rate, **_judged(done, limits, attainment)})
            bar.update()
            bar.set_postfix_str(f"{rate:.3g} requests/s")
            return bool(probes[-1]["holds"])

        low, high = _bracket(holds, w.rate if start is None else start)
        while low and math.isfinite(high) and high / low > 1 + tolerance:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if holds(middle) else (low, middle)
    table = pd.DataFrame(probes)
    failing = table[table["is_told"] & ~table["holds"]].sort_values("rate")
    if failing.empty:
        return Capacity(low, math.inf, table, "no rate was found that does not hold")
    return Capacity(low, float(failing["rate"].iloc[0]), table, str(failing["reason"].iloc[0]))


def _bracket(holds: Callable[[float], bool], start: float) -> tuple[float, float]:
    """Return a rate that holds, 0 if none does, and one that does not, infinity if all do."""
    if not 0 < start < math.inf:
        raise InvalidConfig(
            f"capacity() cannot start at {start} requests/s; give it a load whose arrivals have a "
            "rate, or start="
        )
    if holds(start):
        low = start
        for _ in range(_MOST_DOUBLINGS):
            if not holds(2 * low):
                return low, 2 * low
            low *= 2
        return low, math.inf
    high = start
    for _ in range(_MOST_DOUBLINGS):
        if holds(high / 2):
            return high / 2, high
        high /= 2
    return 0.0, high


def _judged(
    done: Run, limits: Mapping[str, float] | Callable[[Run], bool], share: float
) -> dict[str, Any]:
    """Return whether a run keeps the limits and its queue stays short, and what it fails by."""
    growth, chance = _growth(done.requests)
    kept = math.nan if callable(limits) else attainment_of(done.requests, limits)
    is_told = True
    if growth > max(_LEAST_GROWTH, chance):
        reason = f"the queue grows by {100 * growth:.0f} % of what arrives"
    elif callable(limits) and not limits(done):
        reason = "the limits do not hold"
    elif kept < share:
        reason = f"{100 * kept:.1f} % keep the limits"
    elif not growth + chance <= _MOST_GROWTH:
        reason, is_told = "the load is too short to tell whether the queue grows", False
    else:
        reason = ""
    return {
        "attainment": kept,
        "growth": growth,
        "holds": not reason,
        "is_told": is_told,
        "reason": reason,
    }


def _growth(requests: pd.DataFrame) -> tuple[float, float]:
    """Return by which share of what arrives the queue grows, and how much of it may be chance.

    Both are NaN where the load is too short.
    """
    window = steady_window(requests)
    growth = queue_growth(requests, window)
    num_arrived = int(requests["scheduled_s"].between(*window, inclusive="right").sum())
    if math.isnan(growth.per_s) or not num_arrived:
        return math.nan, math.nan
    rate = num_arrived / (window.end_s - window.start_s)
    return growth.per_s / rate, _CHANCE * growth.error_per_s / rate
