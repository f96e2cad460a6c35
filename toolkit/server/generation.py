"""The engine's side of one HTTP answer: put its prompts in line, follow them, give them up.

Request path: from server.chat and server.completions, to engine.engine. Nothing here waits for
the engine on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from anyio import to_thread
from fastapi import Request as HttpRequest
from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails
from starlette.types import Receive

from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine import Engine
from toolkit.engine.streams import PieceSink
from toolkit.request import OutputPiece, PoolingParams, Request, RequestOrigin, SamplingParams
from toolkit.server.failures import Refusal, as_refusal
from toolkit.server.fanout import Fanout, PieceStream

__all__ = ["Ask", "ClientGone", "Generation", "disconnect"]

logger = logging.getLogger(__name__)

# Below this many prompt tokens, validating and queueing takes less time than changing threads.
_FEW_TOKENS = 4096


class ClientGone(Exception):
    """The client closed the connection before its answer was ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one call wants from the engine: so many samples, or beams, for each prompt."""

    prompts: Sequence[Sequence[int]]
    params: SamplingParams | BeamSearchParams | PoolingParams
    origin: RequestOrigin
    arrival_s: float
    priority: int = 0
    cache_salt: str | None = None
    tags: dict[str, Any] | None = None
    hooks: Sequence[Any] = ()
    tokenize_s: Sequence[float] = ()  # by prompt; empty where they came as tokens

    @property
    def num_samples(self) -> int:
        """Samples of each prompt."""
        params = self.params
        return params.beam_width if isinstance(params, BeamSearchParams) else params.n

    @property
    def has_bad_words(self) -> bool:
        """Whether there are words to be tokenised, each in two ways."""
        return isinstance(self.params, SamplingParams) and bool(self.params.bad_words)

    @property
    def has_form(self) -> bool:
        """Whether a grammar must be compiled, which takes a millisecond, or a thousand."""
        return isinstance(self.params, SamplingParams) and bool(self.params.structured_outputs)

    @property
    def num_choices(self) -> int:
        """Samples of all prompts."""
        return self.num_samples * len(self.prompts)


class Generation:
    """The requests of one call. Choices are numbered prompt by prompt, sample by sample.

    Args:
        engine: Runs the requests.
        ask: What the call wants.
        running: The server's calls; this one is among them from its start to its end.
    """

    def __init__(self, engine: Engine, ask: Ask, running: set[Generation]) -> None:
        self._engine = engine
        self._ask = ask
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._num_streamed: int | None = None
        self.requests: list[Request] = []

    async def stream(self, fanout: Fanout) -> AsyncIterator[list[tuple[int, OutputPiece]]]:
        """Put the prompts in line; return an iterator over what came, as (choice, piece).

        Raises:
            InvalidRequest: a prompt or a parameter is wrong; nothing runs.
        """
        sink = PieceStream(fanout, self._ask.num_choices)
        self._num_streamed = 0
        await self._start(sink)
        return self._choices(sink)

    async def finish(self, http: HttpRequest) -> None:
        """Put the prompts in line and wait until every sample has ended.

        Raises:
            InvalidRequest: a prompt or a parameter is wrong; nothing runs.
            ClientGone: the client left; its requests are aborted.
            Refusal: a request failed or was aborted.
        """
        sink = _EndSignal(self._ask.num_choices)
        await self._start(sink)
        ended = asyncio.ensure_future(sink.ended.wait())
        gone = asyncio.ensure_future(disconnect(http.receive))
        try:
            await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise ClientGone
        finally:
            ended.cancel()
            gone.cancel()
            self.abandon()
        if sink.failed is not None:
            raise _told(sink.failed.error)

    def abandon(self) -> None:
        """End the call: abort what is unfinished, without waiting for the step in progress."""
        self._running.discard(self)
        if any(not sample.is_finished for sample in self._samples):
            self._loop.run_in_executor(None, self.abort, "disconnect")

    def abort(self, by: str) -> None:
        """Abort what is unfinished, from any thread but the event loop's: it waits for a step."""
        for request in tuple(self.requests):
            if not all(sample.is_finished for sample in request.samples):
                self._engine.abort(request.id, by=by)

    @property
    def usage(self) -> CompletionUsage:
        """The tokens so far, of a stream those handed out; a prompt counts once for all samples."""
        num_prompt = sum(request.num_prompt_tokens for request in self.requests)
        num_output = self._num_streamed
        if num_output is None:
            num_output = sum(sample.num_output_tokens for sample in self._samples)
        cached = sum(request.num_cached_tokens for request in self.requests)
        return CompletionUsage(
            prompt_tokens=num_prompt,
            completion_tokens=num_output,
            total_tokens=num_prompt + num_output,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
        )

    @property
    def _samples(self) -> list[Request]:
        return [sample for request in self.requests for sample in request.samples]

    async def _start(self, sink: PieceSink) -> None:
        self._running.add(self)
        num_tokens = sum(map(len, self._ask.prompts))
        try:
            ask = self._ask
            is_quick = num_tokens * ask.num_samples < _FEW_TOKENS
            if is_quick and not (ask.has_form or ask.has_bad_words) and self._engine.is_running:
                self._add_all(sink)
            else:
                await to_thread.run_sync(self._add_all, sink)
        except BaseException:
            self.abandon()
            raise

    def _add_all(self, sink: PieceSink) -> None:
        if not self._engine.is_started:  # somebody stopped the loop; a server needs it
            self._engine.start()
        ask = self._ask
        times_s = ask.tokenize_s or [0.0] * len(ask.prompts)
        for prompt, tokenize_s in zip(ask.prompts, times_s, strict=True):
            self.requests.append(
                self._engine.add(
                    prompt,
                    ask.params,
                    priority=ask.priority,
                    arrival_s=ask.arrival_s,
                    tags=ask.tags,
                    hooks=ask.hooks,
                    cache_salt=ask.cache_salt,
                    origin=ask.origin,
                    sink=sink,
                    tokenize_s=tokenize_s,
                )
            )

    async def _choices(self, sink: PieceStream) -> AsyncIterator[list[tuple[int, OutputPiece]]]:
        first = {request.id: i * self._ask.num_samples for i, request in enumerate(self.requests)}
        num_streamed = 0
        async for pieces in sink:
            num_streamed += sum(len(piece.token_ids) for piece in pieces)
            self._num_streamed = num_streamed
            failed = next((p for p in pieces if p.finish_reason in ("error", "abort")), None)
            if failed is not None:  # what came before the failure is still told
                pieces = [replace(piece, finish_reason=None) for piece in pieces]
            yield [(first[piece.request_id] + piece.index, piece) for piece in pieces]
            if failed is not None:
                raise _told(failed.error)


class _EndSignal:
    """A sink for answers that are sent whole: wakes the event loop once, after the last piece."""

    def __init__(self, num_choices: int) -> None:
        self.ended = asyncio.Event()
        self.failed: OutputPiece | None = None
        self._loop = asyncio.get_running_loop()
        self._open = num_choices

    def __call__(self, piece: OutputPiece) -> None:
        """Take one piece, on the engine's thread."""
        if piece.finish_reason is None:
            return
        self._open -= 1
        if piece.finish_reason in ("error", "abort"):
            self.failed = self.failed or piece
        if self._open and self.failed is None:
            return
        # RuntimeError: the event loop closed while the request ran, so nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.ended.set)


def _told(error: BaseException | None) -> Refusal:
    """Return how a request's end is told to the client; what nobody foresaw goes into the log."""
    refusal = as_refusal(error)
    if refusal.status == 500:
        logger.error("a request failed", exc_info=error)
    return refusal


async def disconnect(receive: Receive) -> None:
    """Return when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
