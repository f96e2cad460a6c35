"""How a server on the command line ends: by a signal, by a second one, or with its parent."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["StopOrders"]

# Windows delivers no signal to a wait without an end.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Stop:
    grace_s: float | None


class StopOrders:
    """Collects the orders to stop, from signal handlers and other threads, and obeys them.

    A ``SimpleQueue`` carries them: it alone may be written to in a signal handler at any moment.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Stop | None] = queue.SimpleQueue()
        self._handled: tuple[signal.Signals, ...] = ()

    def take_signals(self) -> None:
        """Count SIGINT and SIGTERM as orders."""

        def handle(number: int, frame: FrameType | None) -> None:
            self._orders.put(_Stop(None))

        self._handled = (signal.SIGINT, signal.SIGTERM)
        for number in self._handled:
            signal.signal(number, handle)

    def put(self, grace_s: float | None) -> None:
        """Order to stop, with so many seconds for running answers; None: as the settings say."""
        self._orders.put(_Stop(grace_s))

    def obey(self, server: Any, stopping: Callable[[], object]) -> None:
        """Wait for an order and stop the server; a second one cuts its answers short.

        Args:
            server: A ``Server``.
            stopping: Called when the first order came.
        """
        order = self._next()
        stopping()
        failures: list[BaseException] = []

        def stop() -> None:
            try:
                server.stop(grace_s=order.grace_s if order is not None else None)
            except BaseException as error:
                failures.append(error)
            finally:
                self._orders.put(None)

        stopper = threading.Thread(target=stop, name="toolkit-stop")
        stopper.start()
        while self._next() is not None:
            server.hurry()
        stopper.join()
        # Python takes its handlers down before the process ends, and a late signal would kill it.
        for number in self._handled:
            signal.signal(number, signal.SIG_IGN)
        if failures:
            raise failures[0]

    def _next(self) -> _Stop | None:
        while True:
            try:
                return self._orders.get(timeout=_PATIENCE_S)
            except queue.Empty:
                continue
