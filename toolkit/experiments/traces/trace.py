"""What a reader makes of a file, and what readers share: rows, numbers, and errors with lines."""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.arrivals import Timing
from toolkit.experiments.workloads.columns import Columns, objects
from toolkit.experiments.workloads.content import RANDOM_TOKENS, Content
from toolkit.experiments.workloads.drawing import columns_of

__all__ = ["Collected", "Place", "Trace", "json_value", "opened", "table_rows"]


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a file; ``notes`` say what was left out of it."""

    columns: Columns
    content: Content = RANDOM_TOKENS
    seed: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, for what is wrong there."""

    path: Path
    line: int

    def error(self, expected: str, found: Any) -> InvalidConfig:
        """Say what was expected there."""
        return InvalidConfig(f"{self.path}, line {self.line}: expected {expected}, found {found!r}")

    def whole(self, value: Any, name: str) -> int:
        """Return a count; ``374`` and ``374.0`` are the same."""
        try:
            number = _number(value)
            if number < 0 or number != int(number) or number >= 2**31:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.error(f"a whole number for {name}", value) from None
        return int(number)

    def seconds(self, value: Any, name: str) -> float:
        """Return a time."""
        try:
            number = _number(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) < float("inf"):
            raise self.error(f"a number of seconds for {name}", value)
        return number


def _number(value: Any) -> float:
    if isinstance(value, bool):  # which JSON knows, and which is no number there
        raise TypeError
    return float(value)


class Collected:
    """Requests read so far; at most ``limit`` of them.

    Rows without a token in or out are counted and left out: failed calls look like that.
    """

    def __init__(self, path: Path, limit: int | None) -> None:
        self.path = path
        self.limit = limit
        self.num_empty = 0
        self.tags: dict[str, list[Any]] = {}
        self.extra: list[Any] = []  # of each request, what only its format has
        self._times, self._prompts, self._outputs = array("d"), array("i"), array("i")

    @property
    def is_full(self) -> bool:
        """Whether there are as many as were asked for."""
        return self.limit is not None and len(self._times) >= self.limit

    def add(self, time_s: float, num_prompt_tokens: int, num_output_tokens: int) -> bool:
        """Take in a request; False if it is empty and left out."""
        if num_prompt_tokens < 1 or num_output_tokens < 1:
            self.num_empty += 1
            return False
        self._times.append(time_s)
        self._prompts.append(num_prompt_tokens)
        self._outputs.append(num_output_tokens)
        return True

    def order(self) -> Any:
        """Return the places of the requests by time; those of one time as they stand."""
        return np.argsort(np.asarray(self._times), kind="stable")

    def columns(self) -> Columns:
        """Return the requests by time, the first at 0.

        Raises:
            InvalidConfig: there are none.
        """
        if not self._times:
            raise InvalidConfig(f"{self.path} holds no requests")
        order = self.order()
        times = np.asarray(self._times)[order]
        timing = Timing(times - times[0], np.full(len(times), -1))
        tags = {name: objects(values)[order] for name, values in self.tags.items()}
        return columns_of(
            timing, np.asarray(self._prompts)[order], np.asarray(self._outputs)[order]
        ).replace(tags=tags)

    def trace(self, content: Content = RANDOM_TOKENS, notes: Sequence[str] = ()) -> Trace:
        """Return the requests as a trace."""
        if self.num_empty:
            notes = [*notes, f"{self.num_empty} rows without tokens in or out left out"]
        return Trace(self.columns(), content, notes=tuple(notes))


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a text file; raises InvalidConfig where it cannot be read as one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {error}") from error


def json_value(text: str) -> Any:
    """Return what a text of JSON says.

    Raises:
        json.JSONDecodeError: it is none, or lists in it are nested too deeply to be read.
        ValueError: a number in it has too many digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None


def table_rows(
    path: Path,
    file: TextIO,
    *,
    needed: Sequence[str],
    known: Sequence[str] = (),
    above: int = 0,
    longest: int = 1 << 17,
) -> Iterator[tuple[Place, dict[str, str]]]:
    """Yield the rows of a CSV file with a header: those columns of ``needed`` and ``known``.

    ``above`` is how many lines of the file were read before, ``longest`` the characters of a field.

    Raises:
        InvalidConfig: a needed column is missing, or a row is too short.
    """
    reader = csv.reader(file)
    usual = csv.field_size_limit(longest)  # of the whole module, so it is put back
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in needed if name not in header]:
            place = Place(path, above + reader.line_num)
            raise place.error(f"a header with the columns {', '.join(missing)}", ",".join(header))
        places = {name: header.index(name) for name in (*needed, *known) if name in header}
        for row in reader:
            if not row:
                continue
            place = Place(path, above + reader.line_num)
            if len(row) < len(header):
                raise place.error(f"{len(header)} fields", ",".join(row))
            yield place, {name: row[index] for name, index in places.items()}
    except csv.Error as error:
        raise InvalidConfig(f"{path}, line {above + reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(usual)
