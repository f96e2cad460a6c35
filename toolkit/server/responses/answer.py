"""The answer of POST /v1/responses, whole and as a stream of events; kept when it is finished.

Both are made by the same items (``output``), from the deltas of the same parser as a chat's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson
from openai.types.completion_usage import CompletionTokensDetails
from openai.types.responses import Response, ResponseError, ResponseUsage

from toolkit.request import CompletionOutput, OutputPiece
from toolkit.server.chat_choice import ChatChoice
from toolkit.server.failures import Refusal
from toolkit.server.generation import Generation
from toolkit.server.logprobs import TokenEntry, chat_entries
from toolkit.server.responses.envelope import Envelope, as_usage
from toolkit.server.responses.output import Event, Logprobs, Output
from toolkit.server.turns import ChatTurn
from toolkit.text import Tokenizer

__all__ = ["ResponseAnswer"]


class ResponseAnswer:
    """Writes what the engine made of one call.

    Args:
        envelope: Makes the response around the items.
        generation: Has the request.
        turn: Tells how to take the text apart.
        tokenizer: Spells the tokens.
        keep: Takes a finished response as JSON, to store it.
    """

    def __init__(
        self,
        envelope: Envelope,
        generation: Generation,
        *,
        turn: ChatTurn,
        tokenizer: Tokenizer,
        keep: Callable[[bytes], None],
    ) -> None:
        self._envelope = envelope
        self._generation = generation
        self._turn = turn
        self._tokenizer = tokenizer
        self._keep = keep
        self._output = Output()
        self._choice: ChatChoice | None = None
        self._is_cut = False
        self._num_events = 0

    def whole(self) -> bytes:
        """Return the finished response as JSON, and keep it."""
        (sample,) = self._generation.requests[0].output.outputs
        for _ in self._grow(sample, streams=False):
            pass  # the items are what is wanted
        return self._finished(self._final_response())

    # ---- as a stream

    def opening(self) -> Iterator[bytes]:
        """Yield the events before the first token."""
        response = self._envelope.response("in_progress")
        yield self._response_event("response.created", response)
        yield self._response_event("response.in_progress", response)

    def on_piece(self, index: int, piece: OutputPiece) -> Iterator[bytes]:
        """Yield the events of one piece."""
        for event in self._grow(piece, streams=True):
            yield self._written(event)

    def ending(self) -> Iterator[bytes]:
        """Yield the last event, which holds the finished response, and keep that."""
        response = self._final_response()
        body = self._finished(response)
        yield self._framed(f"response.{response.status}", b'"response":' + body)

    def failing(self, refusal: Refusal) -> Iterator[bytes]:
        """Yield the events of an answer that cannot be finished."""
        told = {"code": refusal.code, "message": refusal.message, "param": refusal.param}
        yield self._written(Event("error", told))
        error = ResponseError(code="server_error", message=refusal.message)
        response = self._envelope.response("failed", self._output.items, error=error)
        yield self._response_event("response.failed", response)

    # ---- parts of both

    def _grow(self, part: CompletionOutput | OutputPiece, *, streams: bool) -> Iterator[Event]:
        """Add what the engine made; yield what it did to the items."""
        if self._choice is None:
            request = self._generation.requests[0]
            self._choice = ChatChoice(self._turn, self._tokenizer, request, streams=streams)
        for delta in self._choice.push(part):
            entries = self._logprobs(self._choice.take_entries())
            yield from self._output.take(delta, entries)
        if part.finish_reason is not None:
            self._is_cut = part.finish_reason == "length"
            rest = self._logprobs(self._choice.take_entries())
            yield from self._output.finish(
                rest, is_cut=self._is_cut or self._choice.has_broken_call
            )

    def _logprobs(self, entries: list[TokenEntry] | None) -> Logprobs:
        num_top = self._envelope.body.top_logprobs or 0
        written = chat_entries(entries or (), num_top, self._tokenizer.token_bytes)
        return [entry.model_dump(mode="json") for entry in written]

    def _final_response(self) -> Response:
        return self._envelope.response(
            "incomplete" if self._is_cut else "completed",
            self._output.items,
            usage=self._usage(),
        )

    def _usage(self) -> ResponseUsage:
        usage = self._generation.usage
        if self._choice is not None:
            num_thought = self._choice.num_reasoning_tokens
            details = CompletionTokensDetails(reasoning_tokens=num_thought)
            usage.completion_tokens_details = details
        return as_usage(usage)

    def _finished(self, response: Response) -> bytes:
        body = self._envelope.json(response)
        self._keep(body)
        return body

    def _response_event(self, kind: str, response: Response) -> bytes:
        return self._framed(kind, b'"response":' + self._envelope.json(response))

    def _written(self, event: Event) -> bytes:
        return self._framed(event.kind, orjson.dumps(event.fields)[1:-1])

    def _framed(self, kind: str, fields: bytes) -> bytes:
        """Number an event and write it as it travels."""
        number = self._num_events
        self._num_events += 1
        name = kind.encode()
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (
            name,
            name,
            number,
            fields,
        )
