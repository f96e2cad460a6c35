"""One point to check: its id, what must hold, which client breaks where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from toolkit.conformance.probe import Probe

__all__ = ["Check", "Points"]

Run: TypeAlias = Callable[[Probe], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One point; ``run`` returns when it holds, else raises Failed or NotSupported."""

    id: str
    level: str  # "must": clients break without it; "should": they get less than they could
    what: str
    why: str
    run: Run


class Points(list[Check]):
    """The checks of one topic, in the order in which they are written down.

    >>> points = Points("models")
    >>> @points.must("list", what="there is a list", why="openai: client.models.list()")
    ... def listed(probe): ...
    >>> points[0].id, points[0].level
    ('models/list', 'must')
    """

    def __init__(self, topic: str) -> None:
        super().__init__()
        self._topic = topic

    def must(self, name: str, *, what: str, why: str) -> Callable[[Run], Run]:
        """Add the decorated function: clients break where it fails."""
        return self._adder(name, "must", what, why)

    def should(self, name: str, *, what: str, why: str) -> Callable[[Run], Run]:
        """Add the decorated function: clients lose something where it fails."""
        return self._adder(name, "should", what, why)

    def _adder(self, name: str, level: str, what: str, why: str) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            self.append(Check(f"{self._topic}/{name}", level, what, why, run))
            return run

        return add
