"""Drive an engine from a thread of its own; let other threads act between its steps.

Only the thread that runs the steps touches the engine's state. Everybody else leaves a function
in the inbox, which runs between two steps; with the loop stopped or paused it runs at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["EngineLoop"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


class EngineLoop:
    """A daemon thread that calls ``step`` while there is work and sleeps while there is none.

    Args:
        step: Runs one step; it must not raise.
        has_work: Whether another step is worth running.
    """

    def __init__(self, step: Callable[[], object], has_work: Callable[[], bool]) -> None:
        self._step = step
        self._has_work = has_work
        self._inbox: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()  # held while the engine's state changes
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._pauses = 0
        self._parked = threading.Event()

    @property
    def is_started(self) -> bool:
        """Whether the thread exists, paused or not."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    @property
    def is_running(self) -> bool:
        """Whether the thread drives the engine now."""
        return self.is_started and self._pauses == 0

    @property
    def is_paused(self) -> bool:
        """Whether the thread stands still, or would if it were started."""
        return self._pauses > 0

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is the loop's thread."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Start the thread if there is none."""
        if not self.is_started:
            self.stop()
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="toolkit-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in, and wait for it."""
        thread = self._thread
        if thread is None or self.is_own_thread:
            return
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        thread.join()
        self._thread = None
        self._pauses = 0
        self.drain()

    def pause(self) -> None:
        """Hold the thread between two steps; pauses nest."""
        with self._wake:
            self._pauses += 1
            self._wake.notify_all()
        while self.is_started and not self.is_own_thread:
            if self._parked.wait(timeout=0.1):  # the thread may be ending instead of parking
                return

    def resume(self) -> None:
        """Undo one pause."""
        with self._wake:
            self._pauses = max(0, self._pauses - 1)
            self._wake.notify_all()

    def post(self, action: Callable[[], object]) -> None:
        """Run ``action`` between two steps, without waiting for it."""
        self._inbox.append(action)
        if not self.is_running:
            # The thread stopped, or stopped just now: whoever comes first empties the inbox.
            self.drain()
        else:
            with self._wake:
                self._wake.notify_all()

    def call(self, action: Callable[[], T]) -> T:
        """Run ``action`` between two steps and return what it returns."""
        if not self.is_running or self.is_own_thread:
            with self._lock:
                return action()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

        self.post(run)
        return future.result()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep everybody else from the engine's state for the length of the block."""
        with self._lock:
            yield

    def drain(self) -> None:
        """Run what is in the inbox, on this thread."""
        with self._lock:
            while self._inbox:
                action = self._inbox.popleft()
                try:
                    action()
                except Exception:
                    logger.exception("an action between two steps raised")

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._stopping and (
                    self._pauses or not (self._inbox or self._has_work())
                ):
                    if self._pauses:
                        self._parked.set()
                    self._wake.wait()
                self._parked.clear()
                if self._stopping:
                    return
            with self._lock:
                self.drain()
                if self._has_work() and not self._pauses:
                    self._step()
