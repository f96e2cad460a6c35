"""One cell of a grid of runs: what is asked, under which name it is kept, what becomes of it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import __version__
from toolkit.errors import InvalidConfig
from toolkit.experiments.metrics import after_warmup, normalized_latency
from toolkit.experiments.runs.running import run
from toolkit.experiments.studies.identity import identity_of

if TYPE_CHECKING:
    from toolkit.experiments.runs.results import Run
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["Cell", "Shelf", "at_rate", "label_of", "labelled", "measures", "whole_run"]

_LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")
_RATES = ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput_per_s")


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a grid; ``labels`` are its coordinates, as they stand in the table."""

    labels: Mapping[str, Any]
    workload: Workload
    on: Any
    options: Mapping[str, Any]
    summary: Mapping[str, Any] = field(default_factory=dict)  # slo and warmup_s

    def settings(self) -> dict[str, Any]:
        """Return, as plain values, all that the row depends on.

        Raises:
            InvalidConfig: some of it cannot be told from run to run.
        """
        return {
            "toolkit": __version__,
            "python": platform.python_version(),
            "labels": dict(self.labels),
            "workload": self.workload.fingerprint,
            "on": identity_of(self.on),
            "options": {name: identity_of(value) for name, value in sorted(self.options.items())},
            "summary": {name: identity_of(value) for name, value in sorted(self.summary.items())},
        }

    def measure(self) -> dict[str, Any]:
        """Run it; return its labels and measures as one row.

        Raises:
            KeyboardInterrupt: it was interrupted; what it measured is of another load.
        """
        done = whole_run(self.workload, on=self.on, progress=False, **self.options)
        return {**self.labels, **measures(done, **self.summary)}


class Shelf:
    """A folder that keeps rows of cells by their settings, each taken before anything is run.

    Raises:
        InvalidConfig: settings that cannot be told from run to run.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell]) -> None:
        self._folder = folder
        self._settings = [cell.settings() for cell in cells]  # a policy may change as it runs

    def row(self, place: int) -> dict[str, Any] | None:
        """Return the row that is kept of a cell, if one is.

        Raises:
            InvalidConfig: the file is damaged.
        """
        path = self._path(place)
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["row"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidConfig(f"{path} is no cell of a sweep ({error}); delete it") from error

    def keep(self, place: int, row: Mapping[str, Any]) -> None:
        """Write the row of a cell; a reader finds it whole or not at all."""
        path = self._path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        text = json.dumps({"settings": self._settings[place], "row": row}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)

    def _path(self, place: int) -> Path:
        text = json.dumps(self._settings[place], sort_keys=True)
        return self._folder / f"cell-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def whole_run(w: Workload, on: Any, **options: Any) -> Run:
    """Return a run that nobody interrupted; one that was raises KeyboardInterrupt again.

    What is left of such a run is of another load than its neighbours in a study.
    """
    done = run(w, on, **options)
    if done.is_interrupted:
        raise KeyboardInterrupt
    return done


def measures(
    run: Run, *, slo: Mapping[str, float] | None = None, warmup_s: float = 0.0
) -> dict[str, float]:
    """Return a run's metrics as one row: ``ttft_s_p99``, ``output_tokens_per_s``, ...

    Latencies have mean, p50, p90, p95 and p99; ``norm_latency_s_mean`` is end-to-end time per
    output token; ``cached_share`` is of prompt tokens; ``goodput_share`` needs limits (``slo``).
    """
    table = run.summary(slo=slo, warmup_s=warmup_s)
    row = {
        f"{name}_{statistic}": float(table.at[name, statistic])
        for name in _LATENCIES
        if name in table.index
        for statistic in _STATISTICS
    }
    for name in (*_RATES, "goodput_share"):
        if name in table.index:
            row[name] = float(table.at[name, "mean"])
    late = after_warmup(run.requests, warmup_s)
    finished = late[late["status"] == "finished"]
    row["norm_latency_s_mean"] = normalized_latency(run.requests, warmup_s=warmup_s)
    num_prompt = finished["num_prompt_tokens"].sum()
    row["cached_share"] = (
        float(finished["num_cached_tokens"].sum() / num_prompt) if num_prompt else 0.0
    )
    row["num_finished"] = len(finished)
    row["num_unfinished"] = len(late) - len(finished)
    if run.record is not None:
        row["num_preemptions"] = int(run.record.requests["num_preemptions"].sum())
    return row


def at_rate(w: Workload, rate: float) -> Workload:
    """Return a workload at so many requests per second: the same requests, nearer or farther.

    Raises:
        InvalidConfig: it has no rate to change, or the new one is not positive.
    """
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 < rate < math.inf:
        raise InvalidConfig(f"rate={rate!r} must be a positive number of requests per second")
    if not 0 < w.rate < math.inf:
        raise InvalidConfig(
            f"{w!r} has no rate that could be {rate:g}; give it arrivals with a rate, as Poisson(1)"
        )
    return w.scale(rate=rate / w.rate)


def label_of(value: Any) -> Any:
    """Return what a table shows for a value of an axis: itself if plain, else its name."""
    if value is None or isinstance(value, str | int | float):
        return value
    return getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)


def labelled(axis: str, values: Any) -> dict[Any, Any]:
    """Return an axis' values by label; a mapping brings its own labels.

    Raises:
        InvalidConfig: nothing to vary, or two values with one label.
    """
    if isinstance(values, Mapping):
        found = dict(values)
    else:
        is_one = isinstance(values, str) or not isinstance(values, Sequence | range)
        listed = [values] if is_one else list(values)
        found = {label_of(value): value for value in listed}
        if len(found) < len(listed):
            raise InvalidConfig(
                f"{axis}: two values have the same name; tell them apart with a mapping, as in "
                f"{axis}={{'mine': first, 'other': second}}"
            )
    if not found:
        raise InvalidConfig(f"{axis} is empty; give one value at least")
    return found
