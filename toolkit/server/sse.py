"""Server-sent events: chunks as they come, errors as the last event, an abort when nobody reads."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from toolkit.server.call import Call
from toolkit.server.failures import Refusal, as_refusal
from toolkit.server.generation import Generation

__all__ = ["AnswerStream"]

logger = logging.getLogger(__name__)


class AnswerStream(StreamingResponse):
    """Sends chunks while a generation makes them; aborts it when the client leaves."""

    def __init__(
        self, chunks: AsyncIterator[BaseModel], *, call: Call, generation: Generation
    ) -> None:
        super().__init__(
            self._events(chunks),
            media_type="text/event-stream",
            # A proxy that collects the stream before it passes it on would defeat its purpose.
            headers={**call.headers, "cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._generation = generation
        self._notes: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; starlette cancels it when the client disconnects."""
        self._notes = scope["state"]
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._generation.abandon()

    async def _events(self, chunks: AsyncIterator[BaseModel]) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                yield _event(chunk.model_dump_json(exclude_unset=True))
            yield _event("[DONE]")
        except Exception as error:
            # The status is sent already: the error travels as an event, and no [DONE] follows it.
            if not isinstance(error, Refusal):
                logger.exception("a stream failed")
            refusal = as_refusal(error)
            self._notes["failure"] = refusal.message
            yield _event(json.dumps(refusal.body))


def _event(payload: str) -> bytes:
    return f"data: {payload}\n\n".encode()
