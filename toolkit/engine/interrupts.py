"""Let Ctrl-C wait until a step is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interrupts_held"]


_is_held = False  # on the main thread; only it looks


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Deliver a KeyboardInterrupt after the block instead of in the middle of it.

    A step that was cut in half would leave blocks planned but never computed. Signals reach the
    main thread only, so on any other thread there is nothing to hold. Inside another such block
    there is nothing left to do.
    """
    global _is_held
    if threading.current_thread() is not threading.main_thread() or _is_held:
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    _is_held = True
    try:
        yield
    finally:
        _is_held = False
        signal.signal(signal.SIGINT, handler)
        if pending:
            handler(*pending[-1])
