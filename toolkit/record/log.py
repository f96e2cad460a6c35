"""Keep rows by column: compact while they are written, whole columns when they are read.

A ``Log`` is a row of segments. Each holds a typed array per column and a dictionary of its own for
the names in it, so that what is dropped takes its names along. One thread writes; readers on other
threads take no lock: they see the rows that were there when they asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy as np

__all__ = ["Codes", "Log", "Rows", "Segment", "select"]

Rows = dict[str, np.ndarray]  # by column

# What a column holds: the type code of an array, or
NAME = "n"  # text out of few, stored as a number; None is -1
OBJECT = "o"  # any value, one by one
_NO_NAME = -1


class Codes(dict[str | None, int]):
    """Numbers for names, in the order in which they are first asked for.

    >>> codes = Codes()
    >>> codes["b"], codes["a"], codes["b"], codes[None]
    (0, 1, 0, -1)
    """

    def __missing__(self, name: str | None) -> int:
        code = _NO_NAME if name is None else len(self)
        if name is not None:
            self[name] = code
        return code


class Segment:
    """Consecutive rows of a log, from row number ``start`` on.

    Args:
        start: Number of the first row, counted since the log began.
        kinds: Of the columns.
    """

    __slots__ = ("appends", "codes", "columns", "num_rows", "start")

    def __init__(self, start: int, kinds: Sequence[str]) -> None:
        self.start = start
        self.num_rows = 0  # written last, so that readers find all columns of a row
        self.codes = Codes()
        self.columns: list[Any] = [_empty(kind) for kind in kinds]
        self.appends = [column.append for column in self.columns]


class Log:
    """Rows with typed columns, numbered from 0; the oldest go when there are too many.

    >>> log = Log({"step": "q", "name": "n"}, max_rows=100)
    >>> number = log.append((3, "a")); log.extend(2, ([4, 5], ["b", "a"]))
    >>> log.read(1)["name"].tolist(), log.num_rows
    (['b', 'a'], 3)

    Args:
        kinds: By column: a type code of ``array``, "n" for a name, "o" for any value.
        max_rows: How many are kept, to within one segment.
    """

    def __init__(self, kinds: dict[str, str], *, max_rows: int) -> None:
        self.kinds = kinds
        self.max_rows = max_rows
        # Twenty: a bound that is exact to 5 % without moving rows that stay.
        self._rows_per_segment = max(1, min(65_536, max_rows // 20))
        self._kinds = tuple(kinds.values())
        self._segments: tuple[Segment, ...] = (Segment(0, self._kinds),)
        self._is_name = tuple(kind == NAME for kind in self._kinds)
        self._name_places = [place for place, kind in enumerate(self._kinds) if kind == NAME]
        self._places = {name: place for place, name in enumerate(kinds)}
        self.num_dropped = 0

    @property
    def start(self) -> int:
        """Number of the oldest row that is kept."""
        return self._segments[0].start

    @property
    def end(self) -> int:
        """Number of the row to come."""
        last = self._segments[-1]
        return last.start + last.num_rows

    @property
    def num_rows(self) -> int:
        """How many rows are kept."""
        return self.end - self.start

    @property
    def codes(self) -> Codes:
        """Numbers of the names in the segment that is written to."""
        return self._segments[-1].codes

    # ---- writing

    def append(self, row: Sequence[Any]) -> int:
        """Add a row; return its number."""
        segment = self._segments[-1]
        values = list(row)
        for place in self._name_places:
            values[place] = segment.codes[values[place]]
        for append, value in zip(segment.appends, values, strict=True):
            append(value)
        number = segment.start + segment.num_rows
        segment.num_rows += 1
        if segment.num_rows >= self._rows_per_segment:
            self._begin_segment()
        return number

    def extend(self, count: int, columns: Iterable[Iterable[Any]]) -> None:
        """Add ``count`` rows, column by column; an array has the type of its column."""
        segment = self._segments[-1]
        code = segment.codes.__getitem__
        for column, values, kind in zip(segment.columns, columns, self._kinds, strict=True):
            if kind == OBJECT or isinstance(values, array):
                column.extend(values)
            else:
                numbers = map(code, values) if kind == NAME else values
                # An array takes numbers one by one, which is five times as slow.
                column.frombytes(_packer(f"{count}{_type_code(kind)}").pack(*numbers))
        segment.num_rows += count
        if segment.num_rows >= self._rows_per_segment:
            self._begin_segment()

    def set(self, row: int, column: str, value: Any) -> None:
        """Change a value; nothing happens where the row was dropped."""
        segment = self._find(row)
        if segment is not None:
            place = self._places[column]
            value = segment.codes[value] if self._is_name[place] else value
            segment.columns[place][row - segment.start] = value

    def get(self, row: int, column: str) -> Any:
        """Return one value; None where the row was dropped."""
        segment = self._find(row)
        if segment is None:
            return None
        place = self._places[column]
        value = segment.columns[place][row - segment.start]
        if self._is_name[place]:
            return None if value < 0 else list(segment.codes)[value]
        return value

    def load(self, columns: Rows, *, start: int = 0) -> None:
        """Make whole columns the only rows, numbered from ``start``; more may follow."""
        segment = Segment(start, ())
        for name, kind in self.kinds.items():
            values: Any = columns[name]
            if kind == NAME:
                values = array("i", map(segment.codes.__getitem__, values.tolist()))
            elif kind == OBJECT:
                values = values.tolist()
            segment.columns.append(values)
        segment.num_rows = len(next(iter(columns.values())))
        fresh = Segment(start + segment.num_rows, self._kinds)
        self._segments = (segment, fresh)

    # ---- reading

    def read(self, start: int = 0, end: int | None = None) -> Rows:
        """Return the columns of the rows [start, end) that are kept."""
        parts = [part for segment in self._segments if (part := _slice(segment, start, end))]
        columns = {}
        for index, (name, kind) in enumerate(self.kinds.items()):
            pieces = [_read(segment, index, kind, a, b) for segment, a, b in parts]
            if not pieces:
                columns[name] = np.empty(0, _dtype(kind))
            else:
                columns[name] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return columns

    # ---- small things

    def _find(self, row: int) -> Segment | None:
        for segment in reversed(self._segments):
            if segment.start <= row:
                return segment if row < segment.start + segment.num_rows else None
        return None

    def _begin_segment(self) -> None:
        kept = self._segments
        while self.num_rows > self.max_rows and len(kept) > 1:
            self.num_dropped += kept[0].num_rows
            kept = self._segments = kept[1:]
        self._segments = (*kept, Segment(self.end, self._kinds))


def select(rows: Rows, keep: np.ndarray) -> Rows:
    """Return the rows that a mask [rows] keeps, or that an array of places names."""
    return {name: values[keep] for name, values in rows.items()}


def _empty(kind: str) -> Any:
    return [] if kind == OBJECT else array(_type_code(kind))


def _type_code(kind: str) -> str:
    return "i" if kind == NAME else kind


_packer = lru_cache(maxsize=1024)(Struct)  # a run has few sizes of batches


def _dtype(kind: str) -> Any:
    return object if kind in (NAME, OBJECT) else np.dtype(kind)


def _slice(segment: Segment, start: int, end: int | None) -> tuple[Segment, int, int] | None:
    count = segment.num_rows
    first = max(0, start - segment.start)
    last = count if end is None else min(count, end - segment.start)
    return (segment, first, last) if first < last else None


def _read(segment: Segment, index: int, kind: str, first: int, last: int) -> np.ndarray:
    """Return a copy of one column's rows: an array that is looked at could not grow."""
    values = segment.columns[index][first:last]
    if kind == OBJECT:
        return _objects(values)
    numbers = np.asarray(values)
    if kind != NAME:
        return numbers
    names = _objects([*segment.codes, None])
    return names[numbers]  # -1 is the last one: None


def _objects(values: Sequence[Any]) -> np.ndarray:
    # Not np.array(values, object): it would make rows of values that are sequences.
    return np.fromiter(values, object, len(values))
