"""How long work stood still between two steps: the sign of a busy kernel.

One process has one interpreter lock. While a cell computes in pure Python, the engine's thread gets
its turn late, and the time between two steps grows. Time without any work is no gap, and neither
is the time for which somebody paused the engine.
"""

from __future__ import annotations

__all__ = ["HostGap"]


class HostGap:
    """Seconds from when work was there (the last step's end, or an arrival) to the next step.

    >>> gap = HostGap()
    >>> gap.on_added(1.0)
    >>> gap.on_step(start_s=1.25, end_s=2.0, has_work=True)
    0.25
    >>> gap.on_step(start_s=2.5, end_s=3.0, has_work=False)
    0.5
    >>> gap.on_step(start_s=99.0, end_s=100.0, has_work=False)
    0.0
    """

    def __init__(self) -> None:
        self._work_since_s: float | None = None
        self._is_paused = False

    def on_added(self, time_s: float) -> None:
        """A request joined the line."""
        if self._work_since_s is None and not self._is_paused:
            self._work_since_s = time_s

    def on_paused(self) -> None:
        """Somebody wants the engine to stand still: until the next step nothing counts."""
        self._work_since_s = None
        self._is_paused = True

    def on_step(self, *, start_s: float, end_s: float, has_work: bool) -> float:
        """Return the gap before a step that ended just now."""
        since_s = start_s if self._work_since_s is None else self._work_since_s
        self._work_since_s = end_s if has_work else None
        self._is_paused = False
        return max(0.0, start_s - since_s)
