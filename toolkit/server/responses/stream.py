"""The stream of a response: events with names and numbers, as OpenAI's newer API sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel
from starlette.types import Scope

from toolkit.request import OutputPiece
from toolkit.server.call import Call
from toolkit.server.failures import Refusal
from toolkit.server.generation import Generation
from toolkit.server.responses.answer import ResponseAnswer
from toolkit.server.sse import AnswerStream

__all__ = ["EventStream"]


class EventStream(AnswerStream):
    """Sends a response's events: the first at once, the last in place of ``[DONE]``.

    Args:
        answer: Writes the events.
        pieces: What the engine makes, as (choice, piece).
        call: Gives the headers.
        generation: Is abandoned at the end, however it came.
    """

    done = b""

    def __init__(
        self,
        answer: ResponseAnswer,
        pieces: AsyncIterator[list[tuple[int, OutputPiece]]],
        *,
        call: Call,
        generation: Generation,
    ) -> None:
        super().__init__(answer, pieces, call=call, generation=generation)
        self._response = answer

    def framed(self, chunk: BaseModel | bytes) -> bytes:
        """Return an event, which is written as it travels already."""
        assert isinstance(chunk, bytes)
        return chunk

    def failure(self, refusal: Refusal) -> bytes:
        """Return the events of an answer that cannot be finished."""
        return b"".join(self._response.failing(refusal))

    async def _events(self, scope: Scope) -> AsyncIterator[tuple[bytes, bool]]:
        yield b"".join(self._response.opening()), False
        async for events in super()._events(scope):
            yield events
