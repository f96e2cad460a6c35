"""Server-sent events: chunks as they come, errors as the last event, an abort when nobody reads."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import orjson
from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from toolkit.request import OutputPiece
from toolkit.server.call import Call
from toolkit.server.failures import Refusal, as_refusal
from toolkit.server.generation import Generation, disconnect

__all__ = ["AnswerStream", "StreamedAnswer", "TextTemplates"]

logger = logging.getLogger(__name__)

# Stands for the text in a template: JSON escapes it to something that no field contains.
_TEXT = "\x00text\x00"


class StreamedAnswer(Protocol):
    """Writes what the engine makes in the shape of one endpoint. Bytes are whole JSON chunks."""

    def on_piece(self, index: int, piece: OutputPiece) -> Iterable[BaseModel | bytes]:
        """Return the chunks of one piece of a choice."""
        ...

    def ending(self) -> Iterable[BaseModel | bytes]:
        """Return the chunks after the last piece."""
        ...


class TextTemplates:
    """Chunks that differ in their text alone: one is written for each choice, the rest filled in.

    Writing a chunk of openai's types takes as long as sampling for ten requests.

    Args:
        chunk: Returns the chunk of a choice with a text.
    """

    def __init__(self, chunk: Callable[[int, str], BaseModel]) -> None:
        self._chunk = chunk
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def filled(self, index: int, text: str) -> bytes:
        """Return the JSON of the chunk with this text."""
        around = self._around.get(index)
        if around is None:
            written = self._chunk(index, _TEXT).model_dump_json(exclude_unset=True).encode()
            before, after = written.split(orjson.dumps(_TEXT))
            around = self._around[index] = before, after
        return orjson.dumps(text).join(around)


class AnswerStream(Response):
    """Sends chunks while a generation makes them; aborts it when the client leaves.

    Args:
        answer: Writes the chunks.
        pieces: What the engine makes, as (choice, piece).
        call: Gives the headers.
        generation: Is abandoned at the end, however it came.
    """

    media_type = "text/event-stream"
    done = b"data: [DONE]\n\n"
    """What stands behind the last chunk."""

    def __init__(
        self,
        answer: StreamedAnswer,
        pieces: AsyncIterator[list[tuple[int, OutputPiece]]],
        *,
        call: Call,
        generation: Generation,
    ) -> None:
        # A proxy that collects the stream before it passes it on would defeat its purpose.
        headers = {**call.headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._answer = answer
        self._pieces = pieces
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends or the client disconnects."""
        writing = asyncio.ensure_future(self._write(scope, send))
        leaving = asyncio.ensure_future(disconnect(receive))
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not writing.done():
                writing.cancel()
            self._generation.abandon()
        if writing.done() and not writing.cancelled():
            writing.result()

    def framed(self, chunk: BaseModel | bytes) -> bytes:
        """Return a chunk as it travels."""
        if isinstance(chunk, BaseModel):
            chunk = chunk.model_dump_json(exclude_unset=True).encode()
        return b"data: %b\n\n" % chunk

    def failure(self, refusal: Refusal) -> bytes:
        """Return the last event of a stream that failed."""
        return self.framed(json.dumps(refusal.body).encode())

    async def _write(self, scope: Scope, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for events, is_last in self._events(scope):
            await send({"type": "http.response.body", "body": events, "more_body": not is_last})

    async def _events(self, scope: Scope) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield events that go out together, and whether they are the last ones."""
        try:
            async for pieces in self._pieces:
                chunks = [
                    self.framed(chunk)
                    for index, piece in pieces
                    for chunk in self._answer.on_piece(index, piece)
                ]
                if chunks:
                    yield b"".join(chunks), False
            last = b"".join([*map(self.framed, self._answer.ending()), self.done])
        except Exception as error:
            # The status is sent already: the error travels as an event, and no [DONE] follows it.
            if not isinstance(error, Refusal):
                logger.exception("a stream failed")
            refusal = as_refusal(error)
            scope["state"]["failure"] = refusal.message
            last = self.failure(refusal)
        yield last, True
