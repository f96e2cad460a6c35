"""POST /v1/completions: text or token ids in, their continuation out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request as HttpRequest
from fastapi import Response
from openai.types import Completion, CompletionChoice
from openai.types.completion_choice import Logprobs

from toolkit.errors import InvalidRequest
from toolkit.request import CompletionOutput, OutputPiece
from toolkit.server.call import FINGERPRINT, Call, in_thread_if_long, whole_answer
from toolkit.server.generation import Ask, Generation
from toolkit.server.logprobs import VisibleTokens, completion_entries
from toolkit.server.parameters import completion_params
from toolkit.server.protocol import CompletionRequest
from toolkit.server.served import ServedModel
from toolkit.server.sse import AnswerStream, TextTemplates

__all__ = ["completions"]


async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
    """Continue one prompt or several, whole or as a stream."""
    served: ServedModel = http.app.state.served
    call = Call.of(http, body)
    params = completion_params(body, served.default_params)
    prompts = _listed(body.prompt)
    ask = Ask(
        prompts=await in_thread_if_long(
            sum(map(len, prompts)), lambda: _encoded(prompts, body, served)
        ),
        params=params,
        origin=call.origin,
        arrival_s=call.arrival_s,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        tags=body.tags,
    )
    generation = Generation(served.engine, ask, http.app.state.running)
    answer = _CompletionAnswer(
        body, call, served, generation, echoes=_echoes(prompts, body, served)
    )
    if body.stream:
        pieces = await generation.stream(http.app.state.fanout)
        return AnswerStream(answer, pieces, call=call, generation=generation)
    await generation.finish(http)
    return whole_answer(answer.whole(), call, generation.requests[0])


def _listed(prompt: str | Sequence[Any]) -> list[str | Sequence[int]]:
    """Return the prompts of a body, which may hold one or a list of them."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequest("prompt is empty: give text or token ids", param="prompt")
    return [prompt] if isinstance(prompt[0], int) else list(prompt)


def _encoded(
    prompts: Sequence[str | Sequence[int]], body: CompletionRequest, served: ServedModel
) -> list[Sequence[int]]:
    add_special = body.add_special_tokens is not False
    return [
        served.tokenizer.encode(prompt, add_special_tokens=add_special)
        if isinstance(prompt, str)
        else prompt
        for prompt in prompts
    ]


def _echoes(
    prompts: Sequence[str | Sequence[int]], body: CompletionRequest, served: ServedModel
) -> list[str]:
    """Return what each prompt's answers begin with: its text, if that was asked for."""
    if not body.echo:
        return [""] * len(prompts)
    return [
        prompt if isinstance(prompt, str) else served.tokenizer.decode(prompt) for prompt in prompts
    ]


class _CompletionAnswer:
    """Writes what the engine made in the shapes of OpenAI's text completions."""

    def __init__(
        self,
        body: CompletionRequest,
        call: Call,
        served: ServedModel,
        generation: Generation,
        *,
        echoes: Sequence[str],
    ) -> None:
        self._body = body
        self._call = call
        self._tokenizer = served.tokenizer
        self._generation = generation
        self._echoes = [echo for echo in echoes for _ in range(body.n or 1)]
        self._visible: dict[int, VisibleTokens] = {}
        self._repeats_usage = body.wants_continuous_usage
        self._texts = TextTemplates(
            lambda index, text: self._chunk([_choice(index, text, None, None)])
        )

    def whole(self) -> Completion:
        """Return the finished answer."""
        samples = [
            sample for request in self._generation.requests for sample in request.output.outputs
        ]
        answer = self._envelope([self._choice(index, s) for index, s in enumerate(samples)])
        answer.usage = self._generation.usage
        return answer

    def on_piece(self, index: int, piece: OutputPiece) -> Iterator[Completion | bytes]:
        """Yield the chunk of one piece; the last of each choice carries its reason."""
        text = self._echoes[index] + piece.text
        self._echoes[index] = ""  # it goes out with the first piece
        if piece.finish_reason is None and piece.logprobs is None and not self._repeats_usage:
            if text:
                yield self._texts.filled(index, text)
            return
        if index not in self._visible:
            self._visible[index] = self._visible_tokens()
        logprobs = self._logprobs(self._visible[index], piece)
        if text or piece.finish_reason is not None:
            yield self._chunk([_choice(index, text, logprobs, piece)])

    def ending(self) -> Iterator[Completion]:
        """Yield what follows the last piece: the usage, if it was asked for."""
        if self._body.wants_usage:
            last = self._chunk([])
            last.usage = self._generation.usage
            yield last

    def _choice(self, index: int, sample: CompletionOutput) -> CompletionChoice:
        logprobs = self._logprobs(self._visible_tokens(), sample)
        return _choice(index, self._echoes[index] + sample.text, logprobs, sample)

    def _logprobs(
        self, visible: VisibleTokens, part: CompletionOutput | OutputPiece
    ) -> Logprobs | None:
        if part.logprobs is None:
            return None
        entries = visible.take(part)
        return completion_entries(entries, self._body.logprobs or 0, self._tokenizer.token_bytes)

    def _chunk(self, choices: list[CompletionChoice]) -> Completion:
        chunk = self._envelope(choices)
        if self._body.wants_usage:
            chunk.usage = self._generation.usage if self._body.wants_continuous_usage else None
        return chunk

    def _envelope(self, choices: list[CompletionChoice]) -> Completion:
        return Completion(
            id=self._call.api_id,
            object="text_completion",
            created=self._call.created,
            model=self._call.model,
            choices=choices,
            system_fingerprint=FINGERPRINT,
        )

    def _visible_tokens(self) -> VisibleTokens:
        params = self._generation.requests[0].params
        return VisibleTokens(
            self._tokenizer.spelling(skip_special_tokens=params.skip_special_tokens),
            include_stop=params.include_stop_str_in_output,
        )


def _choice(
    index: int,
    text: str,
    logprobs: Logprobs | None,
    part: CompletionOutput | OutputPiece | None,
) -> CompletionChoice:
    # Without validation: in a stream the reason is null until the end, which the type forbids.
    return CompletionChoice.model_construct(
        index=index,
        text=text,
        logprobs=logprobs,
        finish_reason=part.finish_reason if part else None,
        stop_reason=part.stop_reason if part else None,
    )
