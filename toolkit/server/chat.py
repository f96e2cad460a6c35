"""POST /v1/chat/completions: a conversation in, the assistant's next message out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request as HttpRequest
from fastapi import Response
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_chunk import ChoiceLogprobs as ChunkLogprobs
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob

from toolkit.request import CompletionOutput, OutputPiece
from toolkit.server.call import FINGERPRINT, Call, in_thread_if_long, whole_answer
from toolkit.server.forms import fields_as_sent
from toolkit.server.generation import Ask, Generation
from toolkit.server.logprobs import VisibleTokens, chat_entries, prompt_logprobs
from toolkit.server.parameters import (
    chat_params,
    chat_template_options,
    named_hooks,
    require_few_choices,
)
from toolkit.server.prompts import PromptEncoder
from toolkit.server.protocol import ChatRequest
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings
from toolkit.server.sse import AnswerStream, TextTemplates

__all__ = ["chat_completions"]


async def chat_completions(body: ChatRequest, http: HttpRequest) -> Response:
    """Answer a conversation, whole or as a stream."""
    served: ServedModel = http.app.state.served
    settings: ServerSettings = http.app.state.settings
    call = Call.of(http, body)
    params = chat_params(body, served.default_params, settings)
    require_few_choices(1, body.n or 1, settings)
    options = chat_template_options(body)
    encoder = PromptEncoder(served, settings)
    prompt = await in_thread_if_long(
        sum(len(str(message.get("content"))) for message in body.messages),
        lambda: encoder.chat_prompt(body, options),
    )
    ask = Ask(
        prompts=[prompt.token_ids],
        params=params,
        origin=call.origin,
        arrival_s=call.arrival_s,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        tags=body.tags,
        hooks=named_hooks(body, settings),
        tokenize_s=[prompt.tokenize_s],
    )
    generation = Generation(served.engine, ask, http.app.state.running)
    answer = _ChatAnswer(body, call, served, generation)
    with fields_as_sent(body):
        if body.stream:
            pieces = await generation.stream(http.app.state.fanout)
            return AnswerStream(answer, pieces, call=call, generation=generation)
        await generation.finish(http)
    return whole_answer(answer.whole(), call, generation.requests[0])


class _ChatAnswer:
    """Writes what the engine made in the shapes of OpenAI's chat completions."""

    def __init__(
        self, body: ChatRequest, call: Call, served: ServedModel, generation: Generation
    ) -> None:
        self._body = body
        self._call = call
        self._tokenizer = served.tokenizer
        self._generation = generation
        self._visible: dict[int, VisibleTokens] = {}
        self._unsent_ids: dict[int, list[int]] = {}
        # A chunk that differs from the one before in more than its text is written as a whole.
        self._is_plain = not (body.wants_continuous_usage or body.return_token_ids)
        self._contents = TextTemplates(
            lambda index, text: self._chunk(index, ChoiceDelta(content=text))
        )

    def whole(self) -> ChatCompletion:
        """Return the finished answer."""
        (request,) = self._generation.requests
        extras = self._prompt_extras()
        if self._body.prompt_logprobs is not None:
            extras["prompt_logprobs"] = prompt_logprobs(
                request.prompt_logprobs or (),
                request.prompt_token_ids,
                self._body.prompt_logprobs,
            )
        return ChatCompletion(
            id=self._call.api_id,
            object="chat.completion",
            created=self._call.created,
            model=self._call.model,
            choices=[self._choice(sample) for sample in request.output.outputs],
            system_fingerprint=FINGERPRINT,
            usage=self._generation.usage,
            **extras,
        )

    def _choice(self, sample: CompletionOutput) -> Choice:
        logprobs = None
        if sample.logprobs is not None:
            content = self._entries(self._visible_tokens(), sample)
            logprobs = ChoiceLogprobs(content=content)
        message = ChatCompletionMessage(role="assistant", content=sample.text, refusal=None)
        return Choice.model_validate(
            {
                "index": sample.index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": sample.finish_reason,
                "stop_reason": sample.stop_reason,  # vLLM's: the stop string or token
                **self._token_ids(sample.token_ids),
            }
        )

    def on_piece(self, index: int, piece: OutputPiece) -> Iterator[ChatCompletionChunk | bytes]:
        """Yield the chunks of one piece: role, content, an empty delta with the reason."""
        visible = self._visible.get(index)
        if visible is None:
            visible = self._visible[index] = self._visible_tokens()
            first = self._chunk(index, ChoiceDelta(role="assistant", content=""))
            yield first.model_copy(update=self._prompt_extras())
        logprobs = self._piece_logprobs(visible, piece)
        if self._body.return_token_ids:
            self._unsent_ids.setdefault(index, []).extend(piece.token_ids)
        if piece.text:
            if logprobs is None and self._is_plain:
                yield self._contents.filled(index, piece.text)
            else:
                yield self._chunk(index, ChoiceDelta(content=piece.text), logprobs)
            logprobs = None
        if piece.finish_reason is not None:
            yield self._chunk(index, ChoiceDelta(), logprobs, ending=piece)

    def ending(self) -> Iterator[ChatCompletionChunk]:
        """Yield what follows the last piece: the usage, if it was asked for."""
        if self._body.wants_usage:
            last = self._envelope([])
            last.usage = self._generation.usage
            yield last

    def _piece_logprobs(self, visible: VisibleTokens, piece: OutputPiece) -> ChunkLogprobs | None:
        if piece.logprobs is None:
            return None
        content = self._entries(visible, piece)
        return ChunkLogprobs(content=content) if content else None

    def _entries(
        self, visible: VisibleTokens, part: CompletionOutput | OutputPiece
    ) -> list[ChatCompletionTokenLogprob]:
        return chat_entries(
            visible.take(part),
            self._body.top_logprobs or 0,
            self._tokenizer.token_bytes,
            as_ids=self._body.return_tokens_as_token_ids,
        )

    def _prompt_extras(self) -> dict[str, Any]:
        """Return vLLM's additions that stand once in an answer."""
        if not self._body.return_token_ids:
            return {}
        return {"prompt_token_ids": list(self._generation.requests[0].prompt_token_ids)}

    def _token_ids(self, token_ids: Sequence[int]) -> dict[str, Any]:
        """Return vLLM's addition to a choice: the tokens behind its text."""
        return {"token_ids": list(token_ids)} if self._body.return_token_ids else {}

    def _chunk(
        self,
        index: int,
        delta: ChoiceDelta,
        logprobs: ChunkLogprobs | None = None,
        *,
        ending: OutputPiece | None = None,
    ) -> ChatCompletionChunk:
        fields = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": ending.finish_reason if ending else None,
            **self._token_ids(self._unsent_ids.pop(index, ())),
        }
        if ending is not None:
            fields["stop_reason"] = ending.stop_reason
        return self._envelope([ChunkChoice.model_validate(fields)])

    def _envelope(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        chunk = ChatCompletionChunk(
            id=self._call.api_id,
            object="chat.completion.chunk",
            created=self._call.created,
            model=self._call.model,
            choices=choices,
            system_fingerprint=FINGERPRINT,
        )
        if self._body.wants_usage:
            chunk.usage = self._generation.usage if self._body.wants_continuous_usage else None
        return chunk

    def _visible_tokens(self) -> VisibleTokens:
        params = self._generation.requests[0].params
        return VisibleTokens(
            self._tokenizer.spelling(skip_special_tokens=params.skip_special_tokens),
            include_stop=params.include_stop_str_in_output,
        )
