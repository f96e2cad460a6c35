"""Start and stop a load that somebody passed in; widgets know nobody who could make one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["LoadSwitch"]

Load = Callable[[threading.Event], object]


class LoadSwitch:
    """Runs ``load(stop)`` in a thread of its own until switched off, or until it returns.

    >>> switch = LoadSwitch(lambda stop: stop.wait())
    >>> switch.on(); switch.is_on
    True
    >>> switch.off(); switch.is_on
    False

    Args:
        load: Called with an event; must return soon after it is set.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error = ""  # what the last run raised

    @property
    def is_on(self) -> bool:
        """Whether the load runs."""
        return self._thread is not None and self._thread.is_alive()

    def on(self) -> None:
        """Start the load; nothing happens if it runs."""
        if self.is_on:
            return
        self.error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="toolkit-load", daemon=True
        )
        self._thread.start()

    def off(self, *, patience_s: float = 5.0) -> None:
        """Tell the load to stop, and wait for it; one that does not stop is left behind."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(patience_s)

    def state(self) -> dict[str, Any]:
        """Return what a page shows of it."""
        return {"is_on": self.is_on, "error": self.error, "name": repr(self._load)[:80]}

    def _run(self, stop: threading.Event) -> None:
        try:
            self._load(stop)
        except Exception as error:  # it is somebody else's code; the page says what is wrong
            self.error = f"{type(error).__name__}: {error}"
