"""Carry a request's pieces from the engine's thread to whoever waits for them."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from toolkit.errors import EngineError
from toolkit.request import OutputPiece

__all__ = ["AsyncStream", "PieceSink", "Stream"]


class PieceSink(Protocol):
    """Takes each piece of a request, on the engine's thread; must return at once."""

    def __call__(self, piece: OutputPiece) -> object:
        """Take one piece."""
        ...


# How often a reader asks whether anybody still writes.
_PATIENCE_S = 1.0


class Stream:
    """Iterate over a request's pieces from another thread; ends after the last sample's end.

    Args:
        num_samples: Samples whose ends are awaited.
        is_alive: Whether more can come; when it says no, the reader gets an EngineError.
    """

    def __init__(
        self, num_samples: int = 1, *, is_alive: Callable[[], bool] = lambda: True
    ) -> None:
        self._pieces: queue.SimpleQueue[OutputPiece] = queue.SimpleQueue()
        self._open = num_samples
        self._is_alive = is_alive

    def __call__(self, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        self._pieces.put(piece)

    def __iter__(self) -> Iterator[OutputPiece]:
        while self._open:
            try:
                piece = self._pieces.get(timeout=_PATIENCE_S)
            except queue.Empty:
                _require_alive(self._is_alive)
                continue
            self._open -= piece.finish_reason is not None
            yield piece


class AsyncStream:
    """The same for a coroutine: build it inside the event loop that will iterate."""

    def __init__(
        self, num_samples: int = 1, *, is_alive: Callable[[], bool] = lambda: True
    ) -> None:
        self._is_alive = is_alive
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[OutputPiece] = asyncio.Queue()
        self._arrived = asyncio.Event()
        self._open = num_samples

    def __call__(self, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        # RuntimeError: the event loop closed while the request ran, so nobody reads any more.
        try:
            self._loop.call_soon_threadsafe(self._put, piece)
        except RuntimeError:
            self._open = 0

    async def __aiter__(self) -> AsyncIterator[OutputPiece]:
        while self._open:
            if self._pieces.empty():
                await self._next_is_here()
                continue
            piece = self._pieces.get_nowait()
            self._open -= piece.finish_reason is not None
            yield piece

    def _put(self, piece: OutputPiece) -> None:
        self._pieces.put_nowait(piece)
        self._arrived.set()

    async def _next_is_here(self) -> None:
        """Wait for a piece, asking from time to time whether anybody still writes."""
        self._arrived.clear()
        watch = self._loop.call_later(_PATIENCE_S, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            watch.cancel()
        if self._pieces.empty():
            _require_alive(self._is_alive)


def _require_alive(is_alive: Callable[[], bool]) -> None:
    if not is_alive():
        raise EngineError("the engine was closed or stopped while the request ran")
