"""Compare two results metric by metric, and refuse to where they were not measured alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.cli.bench.environment import MACHINE_FIELDS
from toolkit.cli.bench.results import BenchResult
from toolkit.errors import UnlikeRuns

__all__ = ["Ratio", "compare", "differences"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One metric of two results."""

    metric: str
    first: dict[str, float]
    second: dict[str, float]

    @property
    def ratio(self) -> float | None:
        """The second median divided by the first; None where that is 0."""
        first = self.first["median"]
        return self.second["median"] / first if first else None

    @property
    def ranges_overlap(self) -> bool:
        """Whether the difference could be the spread of the repeats."""
        return self.first["min"] <= self.second["max"] and self.second["min"] <= self.first["max"]


def differences(first: BenchResult, second: BenchResult) -> dict[str, tuple[Any, Any]]:
    """Return the fields that must agree and do not, with both values."""
    pairs = dict(_pairs(first, second))
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def compare(first: BenchResult, second: BenchResult, *, allow: Collection[str] = ()) -> list[Ratio]:
    """Return the ratio of every metric that both have.

    ``allow`` names fields that may differ: those whose effect is to be measured. Raises UnlikeRuns,
    naming the fields, where others differ.
    """
    known = {name for name, _ in _pairs(first, second)}
    if unknown := sorted(set(allow) - known):
        raise UnlikeRuns(f"no field {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    unlike = {name: pair for name, pair in differences(first, second).items() if name not in allow}
    if unlike:
        lines = [f"  {name}: {old!r} and {new!r}" for name, (old, new) in unlike.items()]
        raise UnlikeRuns(
            "these runs are not alike, so a ratio would mean little:\n"
            + "\n".join(lines)
            + f"\nif that is what you compare: --allow {' --allow '.join(unlike)}"
        )
    return [
        Ratio(name, metric, second.metrics[name])
        for name, metric in first.metrics.items()
        if name in second.metrics
    ]


def _pairs(first: BenchResult, second: BenchResult) -> Iterator[tuple[str, tuple[Any, Any]]]:
    yield "benchmark", (first.benchmark, second.benchmark)
    for name in dict.fromkeys((*first.settings, *second.settings)):
        yield name, (first.settings.get(name), second.settings.get(name))
    for name in MACHINE_FIELDS:
        yield name, (first.environment.get(name), second.environment.get(name))
