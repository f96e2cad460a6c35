"""What an experiment of the catalogue is, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue.basis import basis
from toolkit.files import from_home, ready_to_write
from toolkit.html_table import facts_html
from toolkit.record.environment import environment

__all__ = ["SIZES", "Experiment", "Result", "check_size", "means"]

# "quick" ends within a minute on two cores; "paper" is as large as in the paper it repeats.
SIZES = ("quick", "paper")
_FILE = "experiment.json"


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of an experiment measured.

    ``reasons`` says of a claim, by id, why it was not measured, or why it came out as it did.
    ``samples`` has the value of each seed for what was measured with seeds, and ``measured`` their
    mean; what is in ``measured`` alone is no mean of seeds. ``basis`` is what else the numbers rest
    on.

    >>> result = Result("where_the_memory_goes", "quick", {}, {"vllm-orca-max-batch": 7.0})
    >>> result
    Result of where_the_memory_goes, quick, seed 0: 1 claim measured, tables: none
    """

    name: str
    size: str
    data: Mapping[str, pd.DataFrame]
    measured: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    environment: Mapping[str, Any] = field(default_factory=environment)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    basis: Mapping[str, str] = field(default_factory=basis)

    def __repr__(self) -> str:
        num = len(self.measured)
        return (
            f"Result of {self.name}, {self.size}, seed {self.seed}: {num} "
            f"claim{'' if num == 1 else 's'} measured, tables: {', '.join(self.data) or 'none'}"
        )

    def _repr_html_(self) -> str:
        tables = (f'data["{name}"], {len(table)} rows' for name, table in self.data.items())
        facts = {
            "size": self.size,
            "seed": str(self.seed),
            "claims measured": str(len(self.measured)),
            "tables": "; ".join(tables) or "none",
        }
        has_verdicts = bool(self.measured or self.reasons)
        code = "experiments.verdict_table([result])" if has_verdicts else ""
        return facts_html(f"Result of {self.name}", facts, code=code)

    def save(self, folder: str | Path) -> Path:
        """Write ``experiment.json`` and a CSV file per table into a folder; return the folder."""
        folder = ready_to_write(Path(folder) / _FILE).parent
        for name, table in self.data.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        facts = {
            "name": self.name,
            "size": self.size,
            "seed": self.seed,
            "tables": list(self.data),
            "measured": {claim_id: float(value) for claim_id, value in self.measured.items()},
            "reasons": dict(self.reasons),
            "environment": dict(self.environment),
            "samples": {name: list(map(float, values)) for name, values in self.samples.items()},
            "basis": dict(self.basis),
        }
        # Last: a folder with this file is complete.
        (folder / _FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read what ``save`` wrote.

        Raises:
            InvalidConfig: the folder holds no complete result.
        """
        folder = from_home(folder)
        try:
            facts = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            facts = _checked(facts)
            tables = facts.pop("tables")
            # The engine that reads every float as the one that was written.
            data = {name: pd.read_csv(folder / f"{name}.csv", engine="python") for name in tables}
            return cls(data=data, **facts)
        except _DAMAGES as error:
            raise InvalidConfig(
                f"{folder} holds no result of an experiment ({error}); "
                "`toolkit experiment run NAME --output FOLDER` writes one"
            ) from error

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Say whether a folder holds a complete result."""
        return (Path(folder) / _FILE).is_file()


# What reading a damaged file or another kind of file may raise.
_DAMAGES = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_KINDS = {
    "name": str,
    "size": str,
    "seed": int,
    "tables": list,
    "measured": dict,
    "reasons": dict,
    "environment": dict,
    "samples": dict,
    "basis": dict,
}


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a file; raises ValueError where they are not those of a result."""
    facts = {"samples": {}, "basis": {}} | facts  # a file that does not say: not today's
    for name, kind in _KINDS.items():
        if not isinstance(facts[name], kind):
            raise ValueError(f"{name}={facts[name]!r:.80} in its {_FILE}")
    if facts["size"] not in SIZES:
        raise ValueError(f"size={facts['size']!r:.80} in its {_FILE}")
    words = (*facts["tables"], *facts["reasons"].values(), *facts["basis"].values())
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"tables, reasons or basis that are no texts in its {_FILE}")
    numbers = [*facts["measured"].values(), *chain.from_iterable(facts["samples"].values())]
    if not all(type(value) in (int, float) for value in numbers):
        raise ValueError(f"measured={facts['measured']!r:.80} in its {_FILE}")
    return facts


class Experiment(Protocol):
    """A module of the catalogue: a title, the claims it measures, and two functions."""

    @property
    def TITLE(self) -> str:  # noqa: N802  # a constant of the module
        """The question."""
        ...

    @property
    def CLAIMS(self) -> tuple[str, ...]:  # noqa: N802
        """Ids in the table of claims."""
        ...

    def run(self, size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
        """Measure, at one of ``SIZES``; the same seed gives the same result."""
        ...

    def plot(self, result: Result) -> Any:
        """Return a matplotlib figure with ``data``, the table it draws, and the paper's values."""
        ...


def check_size(size: str) -> None:
    """Refuse what is no size of an experiment, with InvalidConfig."""
    if size not in SIZES:
        raise InvalidConfig(f"size={size!r} is not one of {', '.join(SIZES)}")


def means(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the mean over the seeds by claim: what is judged; NaN where a seed has no value."""
    return {claim_id: float(np.mean(values)) for claim_id, values in samples.items()}
