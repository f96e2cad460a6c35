"""Clocks: where the engine's seconds come from."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "VirtualClock", "WallClock"]


class Clock(Protocol):
    """Seconds on a line that never runs backwards; the origin is the clock's own."""

    def now(self) -> float:
        """Return the current time in seconds."""
        ...


class WallClock:
    """Real time, monotonic, in seconds.

    >>> clock = WallClock()
    >>> clock.now() <= clock.now()
    True
    """

    def now(self) -> float:
        """Return ``time.perf_counter()``."""
        return time.perf_counter()


class VirtualClock:
    """Time that moves only when told to: for simulators and for tests.

    >>> clock = VirtualClock()
    >>> clock.advance(0.5)
    >>> clock.now()
    0.5
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def advance(self, duration_s: float) -> None:
        """Move forward by ``duration_s`` seconds; raises ValueError when negative."""
        if duration_s < 0:
            raise ValueError(f"time cannot run backwards: {duration_s} s")
        self._now_s += duration_s
