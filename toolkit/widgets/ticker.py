"""Call live widgets ten times a second at most, from one thread for the whole process."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

__all__ = ["TICKER", "Ticker"]

PERIOD_S = 0.05  # half of the shortest gap between two frames
# Reading a record takes time from the engine: a widget rests 90 times as long as it has worked.
REST_FACTOR = 90.0


class _Ticked(Protocol):
    """What the ticker calls."""

    def on_tick(self) -> None:
        """Do what is due; must not raise."""
        ...

    def send_waiting(self) -> None:
        """Send frames that wait, and read nothing; must not raise."""
        ...

    @property
    def wants_ticks(self) -> bool:
        """Whether any page shows it and more may happen."""
        ...


class Ticker:
    """A daemon thread that lives while a widget wants ticks."""

    def __init__(self) -> None:
        self._due_s: weakref.WeakKeyDictionary[_Ticked, float] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, widget: _Ticked) -> None:
        """Call a widget from now on, until it wants no more ticks."""
        with self._lock:
            self._due_s.setdefault(widget, 0.0)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="toolkit-widgets", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(PERIOD_S)
            with self._lock:
                widgets = list(self._due_s.items())
                if not widgets:
                    self._thread = None
                    return
            for widget, due_s in widgets:
                self._tick(widget, due_s)
            del widgets  # or the last ones would be kept alive while the thread sleeps

    def _tick(self, widget: _Ticked, due_s: float) -> None:
        if not widget.wants_ticks:
            with self._lock:
                self._due_s.pop(widget, None)
            return
        start_s = time.monotonic()
        if start_s < due_s:
            widget.send_waiting()  # an answer to a click is not to wait for a rest to end
            return
        # The thread's own time: waiting for the step in progress costs the engine nothing.
        worked_s = time.thread_time()
        widget.on_tick()
        worked_s = time.thread_time() - worked_s
        with self._lock:
            if widget in self._due_s:
                self._due_s[widget] = start_s + REST_FACTOR * worked_s


TICKER = Ticker()
