"""Clocks: where the engine's seconds come from."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "RecordedClock", "ShiftedClock", "VirtualClock", "WallClock"]


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


class RecordedClock:
    """Time as it was: stands at the moment that it was set to.

    >>> clock = RecordedClock()
    >>> clock.now_s = 0.25
    >>> clock.now()
    0.25
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def now(self) -> float:
        """Return the moment in seconds."""
        return self.now_s


class ShiftedClock:
    """Another clock, read as if it were ``now_s`` at this moment: for an engine that goes back.

    >>> clock = ShiftedClock(VirtualClock(10.0), now_s=2.5)
    >>> clock.now()
    2.5
    """

    def __init__(self, clock: Clock, now_s: float) -> None:
        # Of a clock that is shifted already, the one below: going back often must not nest them.
        self._clock: Clock = clock._clock if isinstance(clock, ShiftedClock) else clock
        self._offset_s = now_s - self._clock.now()

    def now(self) -> float:
        """Return the shifted time in seconds."""
        return self._clock.now() + self._offset_s
