"""One cell of a grid of runs: what is asked, under which name it is kept, what becomes of it."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InvalidConfig
from toolkit.experiments.metrics import after_warmup, normalized_latency
from toolkit.experiments.runs.running import run

if TYPE_CHECKING:
    from toolkit.experiments.runs.results import Run
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["Cell", "at_rate", "label_of", "labelled", "measures"]

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
        """Return, as plain values, all that the row depends on."""
        return {
            "labels": dict(self.labels),
            "workload": self.workload.fingerprint,
            "on": _identity(self.on),
            "cost_model": _identity(getattr(self.on, "cost_model", None)),
            "options": {name: _identity(value) for name, value in sorted(self.options.items())},
            "summary": {name: _identity(value) for name, value in sorted(self.summary.items())},
        }

    def measure(self) -> dict[str, Any]:
        """Run it; return its labels and measures as one row."""
        done = run(self.workload, on=self.on, progress=False, **self.options)
        return {**self.labels, **measures(done, **self.summary)}

    def kept(self, folder: Path) -> dict[str, Any] | None:
        """Return the row that a folder keeps for these settings, if it does.

        Raises:
            InvalidConfig: the file is damaged.
        """
        path = self._path(folder)
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["row"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidConfig(f"{path} is no cell of a sweep ({error}); delete it") from error

    def keep(self, folder: Path, row: Mapping[str, Any]) -> None:
        """Write a row; a reader finds it whole or not at all."""
        path = self._path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        text = json.dumps({"settings": self.settings(), "row": row}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)

    def _path(self, folder: Path) -> Path:
        text = json.dumps(self.settings(), sort_keys=True)
        return folder / f"cell-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


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


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _identity(value: Any) -> Any:
    """Return a plain value that changes when the thing does: of code, a digest of it."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _identity(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(part) for part in value]
    code = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    text = _ADDRESS.sub("", repr(value))
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):  # typed into a plain interpreter, or built in
        source = ""
    return f"{text} {hashlib.sha256(source.encode()).hexdigest()[:12]}"
