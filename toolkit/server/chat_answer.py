"""The answers of POST /v1/chat/completions, in OpenAI's shapes: whole, and as a stream of chunks.

Here deltas of a turn become fields; what is content, reasoning or a call was decided in text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob
from openai.types.completion_usage import CompletionTokensDetails

from toolkit.request import CompletionOutput, OutputPiece
from toolkit.server.call import FINGERPRINT, Call
from toolkit.server.chat_choice import ChatChoice
from toolkit.server.generation import Generation
from toolkit.server.logprobs import TokenEntry, chat_entries, prompt_logprobs
from toolkit.server.protocol import ChatRequest
from toolkit.server.served import ServedModel
from toolkit.server.sse import TextTemplates
from toolkit.server.turns import ChatTurn
from toolkit.text import ContentDelta, ReasoningDelta, ToolCallDelta, Turn
from toolkit.text.turn_deltas import TurnDelta

__all__ = ["ChatAnswer"]


class ChatAnswer:
    """Writes what the engine made of one call.

    Args:
        body: What was asked.
        call: What every chunk repeats.
        served: The model.
        generation: Has the requests.
        turn: Tells how to take the answer apart.
        echo: Text that each answer's content begins with.
    """

    def __init__(
        self,
        body: ChatRequest,
        call: Call,
        served: ServedModel,
        generation: Generation,
        *,
        turn: ChatTurn,
        echo: str = "",
    ) -> None:
        self._body = body
        self._call = call
        self._tokenizer = served.tokenizer
        self._generation = generation
        self._turn = turn
        self._echo = echo
        self._choices: dict[int, ChatChoice] = {}
        # A chunk that differs from the one before in more than its text is written as a whole.
        self._is_plain = not (body.wants_continuous_usage or body.return_token_ids)
        self._contents = TextTemplates(
            lambda index, text: self._chunk(index, ChoiceDelta(content=text))
        )

    # ---- whole

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
            choices=[self._whole_choice(sample) for sample in request.output.outputs],
            system_fingerprint=FINGERPRINT,
            usage=self._usage(),
            **extras,
        )

    def _whole_choice(self, sample: CompletionOutput) -> Choice:
        choice = self._choices[sample.index] = self._new_choice(streams=False)
        turn = Turn.of(choice.push(sample))
        entries = choice.take_entries()
        return Choice.model_validate(
            {
                "index": sample.index,
                "message": self._message(turn),
                "logprobs": None if entries is None else {"content": self._written(entries)},
                "finish_reason": choice.finish_reason(sample.finish_reason),
                "stop_reason": sample.stop_reason,  # vLLM's: the stop string or token
                **self._token_ids(sample.token_ids),
            }
        )

    def _message(self, turn: Turn) -> dict[str, Any]:
        content = self._echo + turn.content
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if turn.tool_calls and not content else content,
            "refusal": None,
        }
        if turn.tool_calls:
            message["tool_calls"] = [
                {
                    "id": each.id,
                    "type": "function",
                    "function": {"name": each.name, "arguments": each.arguments},
                }
                for each in turn.tool_calls
            ]
        if self._turn.style.think is not None and self._turn.shows_reasoning:
            message |= _reasoning(turn.reasoning or None)
        return message

    # ---- as a stream

    def on_piece(self, index: int, piece: OutputPiece) -> Iterator[ChatCompletionChunk | bytes]:
        """Yield the chunks of one piece: role, deltas, an empty delta with the reason."""
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = self._new_choice(streams=True)
            first = self._chunk(index, ChoiceDelta(role="assistant", content=""))
            yield first.model_copy(update=self._prompt_extras())
            if self._echo:
                yield self._chunk(index, ChoiceDelta(content=self._echo))
        deltas = choice.push(piece)
        for delta in deltas:
            if isinstance(delta, ReasoningDelta) and not self._turn.shows_reasoning:
                continue
            entries = choice.take_entries()
            if isinstance(delta, ContentDelta) and self._is_plain and not entries:
                yield self._contents.filled(index, delta.text)
            else:
                yield self._chunk(index, _delta(delta), entries)
        if piece.finish_reason is not None:
            yield self._chunk(index, ChoiceDelta(), choice.take_entries(), ending=piece)

    def ending(self) -> Iterator[ChatCompletionChunk]:
        """Yield what follows the last piece: the usage, if it was asked for."""
        if self._body.wants_usage:
            last = self._envelope([])
            last.usage = self._usage()
            yield last

    # ---- parts of both

    def _new_choice(self, *, streams: bool) -> ChatChoice:
        return ChatChoice(
            self._turn,
            self._tokenizer,
            self._generation.requests[0],
            streams=streams,
            keeps_token_ids=streams and bool(self._body.return_token_ids),
        )

    def _usage(self) -> CompletionUsage:
        usage = self._generation.usage
        if self._turn.style.think is not None:
            num_thought = sum(each.num_reasoning_tokens for each in self._choices.values())
            details = CompletionTokensDetails(reasoning_tokens=num_thought)
            usage.completion_tokens_details = details
        return usage

    def _written(self, entries: Sequence[TokenEntry]) -> list[ChatCompletionTokenLogprob]:
        return chat_entries(
            entries,
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
        entries: Sequence[TokenEntry] | None = None,
        *,
        ending: OutputPiece | None = None,
    ) -> ChatCompletionChunk:
        choice = self._choices[index]
        fields: dict[str, Any] = {
            "index": index,
            "delta": delta,
            "logprobs": {"content": self._written(entries)} if entries else None,
            "finish_reason": None,
            **self._token_ids(choice.take_token_ids()),
        }
        if ending is not None:
            fields["finish_reason"] = choice.finish_reason(ending.finish_reason)
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
            chunk.usage = self._usage() if self._body.wants_continuous_usage else None
        return chunk


def _delta(delta: TurnDelta) -> ChoiceDelta:
    """Write a delta in OpenAI's shape; a call's id, type and name stand in its first one alone."""
    if isinstance(delta, ContentDelta):
        return ChoiceDelta(content=delta.text)
    if isinstance(delta, ReasoningDelta):
        return ChoiceDelta.model_validate(_reasoning(delta.text))
    return ChoiceDelta.model_validate({"tool_calls": [_call_delta(delta)]})


def _call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": delta.arguments}
    if delta.name is None:
        return {"index": delta.index, "function": function}
    function["name"] = delta.name
    return {"index": delta.index, "id": delta.call_id, "type": "function", "function": function}


def _reasoning(text: str | None) -> dict[str, str | None]:
    """Return reasoning under both of vLLM's names for it, the older one and the newer."""
    return {"reasoning_content": text, "reasoning": text}
