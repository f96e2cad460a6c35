"""A progress bar for what takes long, where somebody looks on."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from tqdm.auto import tqdm

__all__ = ["progress_bar"]

_DELAY_S = 2.0  # a run shorter than this needs no bar
_EVERY_S = 1.0  # how often the time of a bar goes on while no unit ends


def progress_bar(total: int | None, what: str, *, unit: str, progress: bool | None) -> tqdm[Any]:
    """Return a bar of ``total`` units, None if nobody knows how many.

    It appears after two seconds, in a terminal whether or not a unit has ended, and its time goes
    on. One inside another vanishes when it is done. Close it, or use it in ``with``.

    Args:
        total: Units in all.
        what: Stands before the bar.
        unit: What is counted, in the singular.
        progress: Whether to show it; None shows it once it takes long, in a terminal or notebook.
    """
    is_hidden = not _is_interactive() if progress is None else not progress
    delay_s = _DELAY_S if progress is None else 0.0
    return _LivingBar(total=total, desc=what, unit=unit, disable=is_hidden, delay=delay_s)


class _LivingBar(tqdm):  # type: ignore[misc]  # has no types
    """A bar that goes on while no unit of it ends, which tqdm's own does not.

    In a terminal a thread draws it. In a notebook it is a widget, which none but the thread that
    made it may touch: it is drawn when it is updated, and when a hidden bar inside it is.
    """

    delay: float

    def __init__(self, **options: Any) -> None:
        # Else tqdm comes to ask every so many units only, and has its monitor draw from a thread.
        # Nothing is smoothed: that takes the time since it was last drawn for that of a unit.
        super().__init__(**options, miniters=0, smoothing=0)
        self._owner = _here()
        self._is_over = threading.Event()
        self._drawer: threading.Thread | None = None
        self._is_widget = hasattr(self, "container")
        if self.disable:
            return
        self.leave = not self.pos  # others are inside the first
        if not self._is_widget:
            self._drawer = threading.Thread(target=self._draw, name="progress bar", daemon=True)
            self._drawer.start()

    def update(self, n: float = 1) -> bool | None:
        """Count units that have ended, or none."""
        if self.disable:
            for bar in list(self._instances):
                if isinstance(bar, _LivingBar) and bar._is_widget and bar._owner == self._owner:
                    bar.update(0)
            return None
        if self._is_widget and self._owner != _here():
            self.n += n  # shown with the next update of its owner's
            return None
        return bool(super().update(n))

    def _draw(self) -> None:
        # Never at once: a sweep forks its workers now, and none may inherit a lock that is held.
        pause_s = max(self.delay, _EVERY_S)
        while not self._is_over.wait(pause_s):
            self.refresh()
            self.delay = 0  # or tqdm's close() believes that it was never on the screen
            pause_s = _EVERY_S

    def close(self) -> None:
        """Draw it for the last time, if it was ever drawn."""
        drawer, self._drawer = getattr(self, "_drawer", None), None
        if drawer is not None:
            self._is_over.set()
            drawer.join()
        super().close()


def _here() -> tuple[int, int]:
    """Return this process and thread; a worker that was forked has a copy of the bar."""
    return os.getpid(), threading.get_ident()


def _is_interactive() -> bool:
    return "ipykernel" in sys.modules or sys.stderr.isatty()
