"""A progress bar for what takes long, where somebody looks on."""

from __future__ import annotations

import sys
import threading
from typing import Any

from tqdm.auto import tqdm

__all__ = ["progress_bar"]

_DELAY_S = 2.0  # a run shorter than this needs no bar
_EVERY_S = 1.0  # how often the time of a bar goes on while no unit ends


def progress_bar(total: int | None, what: str, *, unit: str, progress: bool | None) -> tqdm[Any]:
    """Return a bar of ``total`` units, None if nobody knows how many.

    It appears after two seconds whether or not a unit has ended, and its time goes on. One inside
    another vanishes when it is done. Close it, or use it in ``with``.

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
    """A bar that is drawn while nothing updates it: tqdm's own delay waits for an update."""

    delay: float

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_over = threading.Event()
        self._drawer: threading.Thread | None = None
        if not self.disable:
            self.leave = not self.pos  # others are inside the first
            self._drawer = threading.Thread(target=self._draw, name="progress bar", daemon=True)
            self._drawer.start()

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


def _is_interactive() -> bool:
    return "ipykernel" in sys.modules or sys.stderr.isatty()
