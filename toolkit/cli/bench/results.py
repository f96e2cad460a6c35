"""One benchmark's outcome: its settings, the machine, and each metric over the repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from toolkit.cli.bench.environment import environment
from toolkit.cli.bench.metrics import spread
from toolkit.errors import InvalidConfig
from toolkit.files import from_home, ready_to_write

__all__ = ["BenchResult", "combine"]


# A machine whose others use less than this is called quiet.
_BUSY_CORES = 0.15


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What a benchmark measured, and under which conditions.

    ``settings`` are what was asked for and what was chosen for it (dtype, kernels); ``metrics``
    are the medians and ranges over the repeats.
    """

    benchmark: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the result as JSON; folders that lack are made."""
        ready_to_write(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> BenchResult:
        """Read a result that ``save`` wrote; raises InvalidConfig for anything else."""
        path = from_home(path)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidConfig(f"{path} is no result of `toolkit bench`: {error}") from error

    def table(self) -> Table:
        """Return the metrics as a table to print."""
        runs = max((int(metric["runs"]) for metric in self.metrics.values()), default=0)
        table = Table(
            "metric",
            *("median", "min", "max"),
            title=f"toolkit bench {self.benchmark} ({runs} runs)",
            title_justify="left",
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for name, metric in self.metrics.items():
            table.add_row(name, *(shown(metric[key]) for key in ("median", "min", "max")))
        return table


def combine(
    benchmark: str,
    settings: dict[str, Any],
    repeats: Sequence[Mapping[str, float]],
    notes: Sequence[str] = (),
) -> BenchResult:
    """Make a result of the metrics of each repeat; the environment is read now."""
    names = [name for name in repeats[0] if all(name in repeat for repeat in repeats)]
    metrics = {name: spread([repeat[name] for repeat in repeats]) for name in names}
    notes = list(notes)
    others = metrics.get("other_cores")
    if others is not None and others["max"] > _BUSY_CORES:
        notes.append(
            f"other processes used up to {others['max']:.1f} cores meanwhile: repeat on a quiet "
            "machine before you believe this"
        )
    return BenchResult(benchmark, settings, environment(), metrics, notes)


def shown(value: float) -> str:
    """Write a number with four digits that count.

    >>> shown(0.123456), shown(1234.5), shown(12)
    ('0.1235', '1,234', '12')
    """
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
