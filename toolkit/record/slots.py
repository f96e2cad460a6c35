"""The time axis of spans: a slot is a step, or a long gap between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.request import WAIT_CAUSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HOST", "LONG_GAP_S", "Slots"]

Array = np.ndarray[Any, Any]

# A gap between two steps becomes a span of its own from here on: twice what the interpreter's lock
# takes to change hands. Shorter ones, of which every step has one, are parts of the span before.
LONG_GAP_S = 0.01

HOST = WAIT_CAUSES.index("host")


@dataclass(frozen=True, slots=True)
class Slots:
    """Steps and long gaps in order of time; arrays of one length, but for three."""

    start_s: Array
    end_s: Array
    step: Array  # of a gap: the step before it
    cause: Array  # what the slot keeps waiting requests waiting for, as a place in WAIT_CAUSES
    run: Array  # number of the run of like slots
    is_gap: Array
    run_start: Array  # by run: its first slot
    busy_s: Array  # length of all slots before; one longer
    _numbers: Array  # by step
    _places: Array  # by step

    @classmethod
    def of(cls, steps: pd.DataFrame) -> Slots:
        """Lay the steps of a record out."""
        start_s = steps["start_s"].to_numpy("float64")
        end_s = start_s + steps["duration_s"].to_numpy("float64")
        numbers = steps["step"].to_numpy("int64")
        codes = {cause: code for code, cause in enumerate(WAIT_CAUSES)}
        names = steps["limited_by"].astype("category").cat
        by_name = np.array([codes.get(name, HOST) for name in names.categories] or [HOST])
        cause = by_name[names.codes.to_numpy()].astype("int64")

        long: Array = np.flatnonzero(start_s[1:] - end_s[:-1] > LONG_GAP_S) + 1
        is_gap: Array = np.insert(np.zeros(len(numbers), bool), long, True)
        start_s, end_s = (
            np.insert(start_s, long, end_s[long - 1]),
            np.insert(end_s, long, start_s[long]),
        )
        cause = np.insert(cause, long, HOST)
        like = 2 * cause + is_gap
        is_new = np.concatenate([[True], like[1:] != like[:-1]]) if len(like) else like.astype(bool)
        return cls(
            start_s=start_s,
            end_s=end_s,
            step=np.insert(numbers, long, numbers[long - 1]),
            cause=cause,
            run=np.cumsum(is_new) - 1,
            is_gap=is_gap,
            run_start=np.flatnonzero(is_new),
            busy_s=np.concatenate([[0.0], np.cumsum(end_s - start_s)]),
            _numbers=numbers,
            _places=np.flatnonzero(~is_gap),
        )

    def __len__(self) -> int:
        return len(self.start_s)

    def places(self, steps: Array) -> Array:
        """Return the slots of steps by number; -1 for those that are not kept."""
        if not len(self._numbers):
            return np.full(len(steps), -1)
        found = np.searchsorted(self._numbers, steps).clip(max=len(self._numbers) - 1)
        return np.where(self._numbers[found] == steps, self._places[found], -1)
