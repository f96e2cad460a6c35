"""Carry a request's pieces from the engine's thread to whoever waits for them."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from toolkit.request import OutputPiece

__all__ = ["AsyncStream", "PieceSink", "Stream"]


class PieceSink(Protocol):
    """Takes each piece of a request, on the engine's thread; must return at once."""

    def __call__(self, piece: OutputPiece) -> object:
        """Take one piece."""
        ...


class Stream:
    """Iterate over a request's pieces from another thread; ends after the last sample's end."""

    def __init__(self, num_samples: int = 1) -> None:
        self._pieces: queue.SimpleQueue[OutputPiece] = queue.SimpleQueue()
        self._open = num_samples

    def __call__(self, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        self._pieces.put(piece)

    def __iter__(self) -> Iterator[OutputPiece]:
        while self._open:
            piece = self._pieces.get()
            self._open -= piece.finish_reason is not None
            yield piece


class AsyncStream:
    """The same for a coroutine: build it inside the event loop that will iterate."""

    def __init__(self, num_samples: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[OutputPiece] = asyncio.Queue()
        self._open = num_samples

    def __call__(self, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        # RuntimeError: the event loop closed while the request ran, so nobody reads any more.
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:
            self._open = 0

    async def __aiter__(self) -> AsyncIterator[OutputPiece]:
        while self._open:
            piece = await self._pieces.get()
            self._open -= piece.finish_reason is not None
            yield piece
