"""The requests of a load as columns, a number each: a million of them take a few tens of MB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from toolkit.experiments.workloads.randomness import Array

__all__ = ["Columns", "Ragged", "objects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What is asked, and when: an element per request, in order of ``arrival_id``.

    Whatever reads a load front to back meets every request in time: one that follows another
    (``after``) stands behind it, and behind no request that is due later than the first of its
    chain.
    """

    due_s: Array  # float64: from the start of the load, or from the end of the request it follows
    after: Array  # int32: the request it follows, -1 for none
    num_prompt_tokens: Array  # int32
    num_output_tokens: Array  # int32
    priority: Array  # int32
    tags: Mapping[str, Array]  # of objects

    def __post_init__(self) -> None:
        for column in (*self.numbers().values(), *self.tags.values()):
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.due_s)

    def numbers(self) -> dict[str, Array]:
        """Return all columns but the tags, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)[:-1]}

    def head(self, num: int) -> Columns:
        """Return the first ``num`` requests."""
        return Columns(
            **{name: column[:num] for name, column in self.numbers().items()},
            tags={name: column[:num] for name, column in self.tags.items()},
        )

    def replace(self, **columns: Any) -> Columns:
        """Return these requests with other columns in the place of some."""
        return replace(self, **columns)


def objects(values: Sequence[Any]) -> Array:
    """Return a column of Python objects, whatever they are."""
    made: Array = np.empty(len(values), object)
    made[:] = values
    return made


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different lengths in one array.

    >>> rows = Ragged.of([[1, 2], [], [3]])
    >>> rows[2].tolist(), len(rows)
    ([3], 3)
    """

    offsets: Array  # int64 [num_rows + 1]
    values: Array  # of all rows, one after the other

    @classmethod
    def of(cls, rows: Any, dtype: Any = np.int32) -> Ragged:
        """Make it of an iterable of sequences."""
        rows = [np.asarray(row, dtype) for row in rows]
        offsets: Array = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(offsets, np.concatenate([np.zeros(0, dtype), *rows]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def head(self, num: int) -> Ragged:
        """Return the first ``num`` rows."""
        return Ragged(self.offsets[: num + 1], self.values[: self.offsets[num]])

    @property
    def lengths(self) -> Array:
        """The length of each row, int64."""
        return np.diff(self.offsets)
