"""From the engine's thread to the streams of an event loop: one wake-up for all of them.

The engine's thread only appends. The event loop hands the pieces on, and takes a share of the
processor that is bounded: with many streams and quick steps, pieces wait a few milliseconds and
travel together, so that writing them does not starve the engine which makes them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from toolkit.request import OutputPiece

__all__ = ["Fanout", "PieceStream", "joined"]

# Of the event loop's thread: after a round of writing that took t seconds of processor time, the
# next begins t (1 / share - 1) later. A single stream is written at once.
_PROCESSOR_SHARE = 0.1
# Longest that a piece waits for others: text still flows, whatever the load.
_MAX_WAIT_S = 0.05


class Fanout:
    """Hands the pieces of all calls of one server to their streams.

    Args:
        loop: The event loop in which the streams are read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: deque[tuple[PieceStream, OutputPiece]] = deque()
        self._is_due = False
        self._next_s = 0.0

    def put(self, stream: PieceStream, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        self._arrived.append((stream, piece))
        if not self._is_due:
            self._is_due = True
            # RuntimeError: the event loop closed while requests ran, so nobody reads any more.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wait_for_turn)

    def _wait_for_turn(self) -> None:
        wait_s = self._next_s - self._loop.time()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._hand_over)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Wake every stream that has pieces, then learn what their writing costs."""
        self._is_due = False  # before the pieces are taken: one that comes now rings again
        started_s = time.thread_time()
        streams = set()
        while self._arrived:
            stream, piece = self._arrived.popleft()
            stream.take(piece)
            streams.add(stream)
        for stream in streams:
            stream.wake()
        # Two turns of the event loop later the readers, who become ready in the next, have written.
        self._loop.call_soon(self._loop.call_soon, self._rest, started_s)

    def _rest(self, started_s: float) -> None:
        cost_s = time.thread_time() - started_s
        wait_s = min(cost_s * (1 / _PROCESSOR_SHARE - 1), _MAX_WAIT_S)
        self._next_s = self._loop.time() + wait_s


class PieceStream:
    """The pieces of one call, for the coroutine that writes them.

    Yields what came since the last time, joined to one piece for each sample; ends after the last
    sample's end. A reader that is slow gets few long pieces.

    Args:
        fanout: Of the event loop in which the stream is read.
        num_samples: Samples whose ends are awaited.
    """

    def __init__(self, fanout: Fanout, num_samples: int) -> None:
        self._fanout = fanout
        self._open = num_samples
        self._pieces: list[OutputPiece] = []
        self._is_here = asyncio.Event()

    def __call__(self, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        self._fanout.put(self, piece)

    def take(self, piece: OutputPiece) -> None:
        """Keep one piece until the reader comes, on the event loop's thread."""
        self._pieces.append(piece)

    def wake(self) -> None:
        """Let the reader go on."""
        self._is_here.set()

    async def __aiter__(self) -> AsyncIterator[list[OutputPiece]]:
        while self._open:
            await self._is_here.wait()
            self._is_here.clear()
            pieces, self._pieces = self._pieces, []
            self._open -= sum(piece.finish_reason is not None for piece in pieces)
            yield joined(pieces)


def joined(pieces: Sequence[OutputPiece]) -> list[OutputPiece]:
    """Join the pieces of each sample to one; samples stand in the order of their first piece."""
    if len(pieces) == 1:
        return list(pieces)
    by_sample: dict[tuple[str, int], list[OutputPiece]] = {}
    for piece in pieces:
        by_sample.setdefault((piece.request_id, piece.index), []).append(piece)
    return [_one(several) for several in by_sample.values()]


def _one(pieces: Sequence[OutputPiece]) -> OutputPiece:
    last = pieces[-1]
    if len(pieces) == 1:
        return last
    logprobs = None
    if any(piece.logprobs is not None for piece in pieces):
        logprobs = [entry for piece in pieces for entry in piece.logprobs or ()]
    return OutputPiece(
        request_id=last.request_id,
        index=last.index,
        text="".join([piece.text for piece in pieces]),
        token_ids=tuple(token_id for piece in pieces for token_id in piece.token_ids),
        logprobs=logprobs,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        error=last.error,
    )
