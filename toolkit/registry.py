"""What lives in this process: engines and servers with the memory they hold, and their end.

    >>> import toolkit
    >>> toolkit.live()                                               # doctest: +SKIP
    >>> toolkit.close_all()                                          # doctest: +SKIP

Only weak references are kept: nothing lives longer because it is listed here.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from toolkit.html_table import rows_html

__all__ = ["Holding", "Live", "close_all", "live", "register", "resident_bytes"]

_GIB = 1024**3
_COLUMNS = ("", "what", "name", "state", "where", "weights", "KV cache", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One live thing and what it holds; bytes that are unknown, or somebody else's, are None.

    Args:
        kind: "LLM", "server" or "server process".
        name: The model's name.
        state: What it does now.
        where: Its device or its URL.
        weight_bytes: The model's weights.
        kv_bytes: The KV cache, which is taken at first use.
        resident_bytes: Memory of the process, for one that is a process of its own.
    """

    kind: str
    name: str
    state: str
    where: str
    weight_bytes: int | None = None
    kv_bytes: int | None = None
    resident_bytes: int | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """What a row of the table shows."""
        sizes = (self.weight_bytes, self.kv_bytes, self.resident_bytes)
        return self.kind, self.name, self.state, self.where, *map(_size, sizes)


class Closable(Protocol):
    """What can be listed and closed."""

    def holding(self) -> Holding | None:
        """Say what is held; None once it is closed."""
        ...

    def close(self) -> None:
        """Give it back; harmless when it is closed already."""
        ...


@dataclass(frozen=True, slots=True)
class Live:
    """What lives now, a row each; iterate, take the ``len``, or give it to ``pd.DataFrame``.

    ``live().thing(1)`` is the LLM or server of row 1, for whoever lost the variable it was in.
    """

    rows: tuple[Holding, ...]
    resident_bytes: int | None
    # Weak: a list that is kept in a notebook's output keeps no model in memory.
    references: tuple[weakref.ref[Closable], ...] = field(default=(), repr=False)

    def thing(self, index: int) -> Any:
        """Return the LLM or server of a row.

        Raises:
            LookupError: there is no such row, or its object is no more.
        """
        thing = self.references[index]()
        if thing is None:
            raise LookupError(f"what row {index} showed is no more")
        return thing

    def __iter__(self) -> Iterator[Holding]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        cells = [_COLUMNS, *self._cells]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join([*(lines if self.rows else ["nothing lives"]), self._note])

    def _repr_html_(self) -> str:
        return rows_html(_COLUMNS, self._cells, note=self._note)

    @property
    def _cells(self) -> list[tuple[str, ...]]:
        return [(str(index), *row.cells) for index, row in enumerate(self.rows)]

    @property
    def _note(self) -> str:
        return f"this process holds {_size(self.resident_bytes)} of main memory in all"


# Servers and LLMs, in no order; a lock, since they are made and dropped on any thread.
_things: weakref.WeakSet[Closable] = weakref.WeakSet()
_lock = threading.Lock()


def register(thing: Closable) -> None:
    """List a thing until it is closed or collected."""
    with _lock:
        _things.add(thing)


def live() -> Live:
    """Return the live LLMs and servers of this process, with the memory they hold."""
    return _live(sorted(_found(), key=lambda pair: (pair[1].kind, pair[1].name, pair[1].where)))


def close_all() -> Live:
    """Close every server, then every LLM; return what was closed.

    Raises:
        Exception: the first that a ``close()`` raised, after all others were closed too.
    """
    found = sorted(_found(), key=lambda pair: pair[1].kind == "LLM")  # servers may own an LLM
    failure: Exception | None = None
    for thing, _ in found:
        try:
            thing.close()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return _live(found)


def resident_bytes(process_id: int | None = None) -> int | None:
    """Return the main memory of a process, this one by default; None where nothing tells."""
    try:
        pages = Path(f"/proc/{process_id or 'self'}/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _live(found: list[tuple[Closable, Holding]]) -> Live:
    return Live(
        tuple(holding for _, holding in found),
        resident_bytes(),
        tuple(weakref.ref(thing) for thing, _ in found),
    )


def _found() -> list[tuple[Closable, Holding]]:
    with _lock:
        things = list(_things)
    pairs = [(thing, thing.holding()) for thing in things]
    return [(thing, holding) for thing, holding in pairs if holding is not None]


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "-"
    gib = num_bytes / _GIB
    return f"{gib:.2f} GiB" if gib >= 1 else f"{gib * 1024:.1f} MiB"
