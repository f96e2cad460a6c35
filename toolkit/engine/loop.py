"""Drive an engine from a thread of its own; let others act between its steps.

Only the thread that runs the steps touches the engine's state. Everybody else leaves a function
in the inbox, which runs between two steps; with the loop stopped or paused it runs at once. An
observer that acts in the middle of a step is heard when the step is over.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from toolkit.engine.interpreter import quick_switching
from toolkit.interrupts import interrupts_held

__all__ = ["EngineLoop"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


# Loops that may run when the interpreter ends: a thread that is torn down inside torch aborts the
# whole process, so each finishes the step it is in.
_LOOPS: weakref.WeakSet[EngineLoop] = weakref.WeakSet()


@atexit.register
def _stop_loops() -> None:
    for loop in list(_LOOPS):
        loop.stop()


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
        self._stepper: threading.Thread | None = None  # who is inside a step
        self._actor: threading.Thread | None = None  # who acts between two
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._pauses = 0
        self._parked = threading.Event()

    # ---- state

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

    @property
    def is_inside_step(self) -> bool:
        """Whether the caller was called from inside a step, as observers and sinks are."""
        return threading.current_thread() is self._stepper

    @property
    def is_caller(self) -> bool:
        """Whether the caller was called by the engine: no step can run before it returns."""
        this = threading.current_thread()
        return this is self._thread or this is self._stepper or this is self._actor

    # ---- who drives

    def start(self) -> None:
        """Start the thread if there is none."""
        with self._wake:
            if self.is_started:
                return
            ending = self._thread
        if ending is not None and not self.is_own_thread:
            ending.join()
        with self._wake:
            if self.is_started:  # somebody else was faster
                return
            self._stopping = False
            self._parked.clear()
            thread = threading.Thread(target=self._run, name="toolkit-engine", daemon=True)
            with interrupts_held():
                thread.start()
                self._thread = thread
            _LOOPS.add(self)

    def stop(self) -> None:
        """End the thread after the step it is in, and wait for it unless it is the caller."""
        thread = self._thread
        if thread is None:
            return
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if not self.is_own_thread:
            thread.join()
            self.drain()

    def pause(self) -> None:
        """Hold the thread between two steps; pauses nest."""
        with self._wake:
            self._pauses += 1
            self._wake.notify_all()
        while self.is_started and not self.is_own_thread:
            if self._parked.wait(timeout=0.1):  # the thread may be ending instead of parking
                break

    def resume(self) -> None:
        """Undo one pause."""
        with self._wake:
            self._pauses = max(0, self._pauses - 1)
            if self._pauses == 0:
                # Here, not when the thread wakes: the next pause() must not find it still set.
                self._parked.clear()
            self._wake.notify_all()

    # ---- acting between steps

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
        """Run ``action`` between two steps and return what it returns.

        From inside a step it runs at once, so it must only read then: see ``is_inside_step``.
        """
        if not self.is_running or self.is_own_thread:
            with self._lock, self._acting():
                return action()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

        self.post(run)
        return future.result()

    def run_step(self, step: Callable[[], T]) -> T:
        """Run a step on this thread while everybody else is kept from the engine's state."""
        with self._lock:
            self.drain()
            self._stepper = threading.current_thread()
            try:
                return step()
            finally:
                self._stepper = None
                self.drain()

    def drain(self) -> None:
        """Run what is in the inbox, on this thread; inside a step, leave it for the step's end."""
        with self._lock:
            while self._inbox and self._stepper is None:
                action = self._inbox.popleft()
                try:
                    with self._acting():
                        action()
                except Exception:
                    logger.exception("an action between two steps raised")

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Note who acts; whoever enters holds the lock."""
        outer, self._actor = self._actor, threading.current_thread()
        try:
            yield
        finally:
            self._actor = outer

    def _run(self) -> None:
        with quick_switching():
            while self._wait_for_work():
                with self._lock:
                    if not self._pauses and self._has_work():
                        self.run_step(self._step)

    def _wait_for_work(self) -> bool:
        """Return True when a step can run, False when the thread is to end."""
        while True:
            self.drain()
            with self._wake:
                if self._stopping:
                    return False
                if self._inbox:
                    continue
                if self._pauses:
                    self._parked.set()
                    self._wake.wait()
                elif self._has_work():
                    return True
                else:
                    self._wake.wait()
