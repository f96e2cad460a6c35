"""Send frames to the pages that show a widget: the next one only after the last was drawn.

Nothing queues: of each kind the newest frame waits. While a page does not answer, because it is
slow or because a cell keeps the kernel from hearing it, a frame goes every ``PATIENCE_S``; one that
stays silent is taken for closed until it answers after all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["MIN_GAP_S", "Frames"]

MIN_GAP_S = 0.1  # ten updates a second
PATIENCE_S = 1.0
SILENCE_S = 15.0  # after so long without an answer a page is closed, or its computer asleep

# What JavaScript has typed arrays for; wider integers lose their upper half, which nobody uses.
_WIRE_DTYPES = {"int64": "int32", "uint64": "uint32", "bool": "uint8", "float16": "float32"}

Send = Callable[[dict[str, Any], "list[bytes]"], None]


@dataclass(slots=True)
class _View:
    """A page that shows the widget, and the last frame it has drawn."""

    acked: int
    asked_s: float | None = None  # when the oldest frame was sent that it has not answered


class Frames:
    """The frames of one widget; safe to call from any thread."""

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.RLock()
        self._views: dict[str, _View] = {}
        self._pending: dict[str, tuple[dict[str, Any], list[bytes]]] = {}
        self._sequence = 0
        self._sent_s = float("-inf")

    # ---- pages

    def open(self, view: str) -> None:
        """Count a page that has begun to show the widget."""
        with self._lock:
            self._views[view] = _View(acked=self._sequence)

    def close(self, view: str) -> None:
        """Forget a page."""
        with self._lock:
            self._views.pop(view, None)

    def acknowledge(self, view: str, sequence: int) -> None:
        """Note that a page has drawn a frame; send what has waited for it."""
        with self._lock:
            state = self._views.setdefault(view, _View(acked=sequence))
            state.acked = max(state.acked, sequence)
            state.asked_s = None if state.acked >= self._sequence else self._clock()
            self.flush()

    @property
    def num_views(self) -> int:
        """Pages that show the widget, those that have fallen silent aside."""
        now_s = self._clock()
        with self._lock:
            for view, state in list(self._views.items()):
                if state.asked_s is not None and now_s - state.asked_s > SILENCE_S:
                    del self._views[view]
            return len(self._views)

    # ---- frames

    @property
    def is_ready(self) -> bool:
        """Whether a frame would go out at once."""
        with self._lock:
            if self.num_views == 0:
                return False
            is_behind = any(state.asked_s is not None for state in self._views.values())
            return self.idle_s >= (PATIENCE_S if is_behind else MIN_GAP_S)

    @property
    def has_pending(self) -> bool:
        """Whether a frame waits."""
        return bool(self._pending)

    @property
    def idle_s(self) -> float:
        """Seconds since the last frame went out."""
        return self._clock() - self._sent_s

    def put(
        self, kind: str, meta: dict[str, Any], arrays: dict[str, Any], *, is_full: bool = False
    ) -> None:
        """Send a frame as soon as it may go; a full one, asked for by a new page, goes now."""
        with self._lock:
            if self.num_views == 0:
                return  # a page asks for everything when it opens
            self._pending.pop(kind, None)
            self._pending[kind] = _packed(kind, meta, arrays, is_full)
            self.flush(now=is_full)

    def flush(self, *, now: bool = False) -> None:
        """Send what waits, if its time has come."""
        with self._lock:
            if not self._pending or not (now or self.is_ready):
                return
            pending, self._pending = self._pending, {}
            self._sent_s = self._clock()
            for content, buffers in pending.values():
                self._sequence += 1
                self._send({**content, "seq": self._sequence}, buffers)
            for state in self._views.values():
                if state.asked_s is None:
                    state.asked_s = self._sent_s


def _packed(
    kind: str, meta: dict[str, Any], arrays: dict[str, Any], is_full: bool
) -> tuple[dict[str, Any], list[bytes]]:
    """Return a message and its binary buffers; the bytes are copied, so arrays may change."""
    heads, buffers = [], []
    for name, values in arrays.items():
        array = np.asarray(values)
        array = array.astype(_WIRE_DTYPES.get(str(array.dtype), array.dtype), order="C", copy=False)
        heads.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape)})
        buffers.append(array.tobytes())
    return {"kind": kind, "meta": meta, "arrays": heads, "full": is_full}, buffers
