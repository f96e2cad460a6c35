"""Let Ctrl-C wait until a step is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["interrupts_held"]


_is_held = False  # on the main thread; only it looks


class interrupts_held:  # noqa: N801 - reads as what holds inside the block
    """Deliver a KeyboardInterrupt after the block instead of in the middle of it.

    A step that was cut in half would leave blocks planned but never computed. Signals reach the
    main thread only, so on any other thread there is nothing to hold. Inside another such block
    there is nothing left to do.
    """

    # A class and no generator: a step enters two, and a generator takes three times as long.
    __slots__ = ("_handler", "_pending")

    def __enter__(self) -> None:
        global _is_held
        self._handler: Callable[..., Any] | None = None
        if _is_held or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            return
        pending: list[tuple[int, FrameType | None]] = []
        self._pending = pending
        signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
        self._handler = handler
        _is_held = True

    def __exit__(self, *raised: object) -> None:
        global _is_held
        handler = self._handler
        if handler is None:
            return
        _is_held = False
        signal.signal(signal.SIGINT, handler)
        if self._pending:
            handler(*self._pending[-1])
