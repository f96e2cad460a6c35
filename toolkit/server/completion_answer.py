"""What the engine made, in the shapes of OpenAI's text completions, whole and as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai.types import Completion, CompletionChoice, CompletionUsage
from openai.types.completion_choice import Logprobs

from toolkit.request import CompletionOutput, OutputPiece, Request
from toolkit.server.call import FINGERPRINT, Call
from toolkit.server.generation import Generation
from toolkit.server.logprobs import (
    TokenEntry,
    VisibleTokens,
    completion_entries,
    hidden_stop_ids,
    prompt_entries,
    prompt_logprobs,
)
from toolkit.server.protocol import CompletionRequest
from toolkit.server.sse import TextTemplates
from toolkit.text import Tokenizer

__all__ = ["CompletionAnswer"]


@dataclass(slots=True)
class _Choice:
    """Where one choice stands: what it begins with, and what waits to be sent with some text."""

    request: Request
    echo: str
    visible: VisibleTokens
    has_begun: bool = False
    unsent_ids: list[int] = field(default_factory=list)


class CompletionAnswer:
    """Writes one call's answer.

    Args:
        body: What was asked for.
        call: What every part of the answer repeats.
        tokenizer: The model's.
        generation: Makes the tokens; its requests are in line already.
        echoes: What the answers to each prompt begin with.
    """

    def __init__(
        self,
        body: CompletionRequest,
        call: Call,
        tokenizer: Tokenizer,
        generation: Generation,
        *,
        echoes: Sequence[str],
    ) -> None:
        self._body = body
        self._call = call
        self._tokenizer = tokenizer
        self._generation = generation
        self._echoes = echoes
        self._streamed: list[_Choice] = []
        # A chunk that differs from the one before in more than its text is written as a whole.
        self._is_plain = not (body.wants_continuous_usage or body.return_token_ids)
        self._texts = TextTemplates(
            lambda index, text: self._chunk([_choice(index, text, None, None)])
        )

    def whole(self) -> Completion:
        """Return the finished answer."""
        choices: list[CompletionChoice] = []
        for request, echo in zip(self._generation.requests, self._echoes, strict=True):
            for sample in self._shown(request.output.outputs):
                choices.append(self._whole_choice(len(choices), sample, request, echo))
        answer = self._envelope(choices)
        answer.usage = self._usage()
        return answer

    def on_piece(self, index: int, piece: OutputPiece) -> Iterator[Completion | bytes]:
        """Yield the chunk of one piece; the last of each choice carries its reason."""
        choice = self._choice_at(index)
        is_first, choice.has_begun = not choice.has_begun, True
        if self._body.shows_prompt_alone:
            logprobs = self._logprobs([], choice) if is_first else None
            text = choice.echo if is_first else ""
        else:
            entries = choice.visible.take(piece) if piece.logprobs is not None else []
            logprobs = self._logprobs(entries, choice, with_prompt=is_first)
            text = (choice.echo if is_first else "") + piece.text
        if self._body.return_token_ids:
            choice.unsent_ids += piece.token_ids
        if not text and piece.finish_reason is None:
            return
        if self._is_plain and logprobs is None and piece.finish_reason is None:
            yield self._texts.filled(index, text)
            return
        extras = self._chunk_extras(choice, is_first=is_first)
        yield self._chunk([_choice(index, text, logprobs, piece, extras)])

    def ending(self) -> Iterator[Completion]:
        """Yield what follows the last piece: the usage, if it was asked for."""
        if self._body.wants_usage:
            last = self._chunk([])
            last.usage = self._usage()
            yield last

    # ---- parts

    def _shown(self, samples: Sequence[CompletionOutput]) -> Sequence[CompletionOutput]:
        """Return the samples that are answered: of ``best_of``, the n most likely per token."""
        if not self._body.ranks_samples:
            return samples
        ranked = sorted(samples, key=lambda sample: -_mean_logprob(sample))
        return ranked[: self._body.n or 1]

    def _whole_choice(
        self, index: int, sample: CompletionOutput, request: Request, echo: str
    ) -> CompletionChoice:
        choice = _Choice(request, echo, self._visible_tokens(request))
        text, entries, token_ids = sample.text, [], sample.token_ids
        if self._body.shows_prompt_alone:
            text, token_ids = "", ()
        elif sample.logprobs is not None:
            entries = choice.visible.take(sample)
        extras: dict[str, Any] = {}
        if self._body.return_token_ids:
            extras |= {
                "token_ids": list(token_ids),
                "prompt_token_ids": list(request.prompt_token_ids),
            }
        if self._body.prompt_logprobs is not None:
            extras["prompt_logprobs"] = prompt_logprobs(
                request.prompt_logprobs or (),
                request.prompt_token_ids,
                self._body.prompt_logprobs,
            )
        logprobs = self._logprobs(entries, choice, with_prompt=True)
        return _choice(index, echo + text, logprobs, sample, extras)

    def _logprobs(
        self, entries: list[TokenEntry], choice: _Choice, *, with_prompt: bool = True
    ) -> Logprobs | None:
        """Write the entries of a text that begins with the echo; None if none were asked for."""
        if self._body.logprobs is None:
            return None
        num_echoed = len(choice.echo)
        shifted = [entry._replace(start=entry.start + num_echoed) for entry in entries]
        if with_prompt and self._body.echo:
            shifted = prompt_entries(self._tokenizer, choice.request, choice.echo) + shifted
        return completion_entries(
            shifted,
            self._body.logprobs,
            self._tokenizer.token_bytes,
            as_ids=self._body.return_tokens_as_token_ids,
        )

    def _chunk_extras(self, choice: _Choice, *, is_first: bool) -> dict[str, Any]:
        if not self._body.return_token_ids:
            return {}
        token_ids, choice.unsent_ids = choice.unsent_ids, []
        extras: dict[str, Any] = {"token_ids": [] if self._body.shows_prompt_alone else token_ids}
        if is_first:
            extras["prompt_token_ids"] = list(choice.request.prompt_token_ids)
        return extras

    def _choice_at(self, index: int) -> _Choice:
        if not self._streamed:
            self._streamed = [
                _Choice(request, echo, self._visible_tokens(request))
                for request, echo in zip(self._generation.requests, self._echoes, strict=True)
                for _ in request.samples
            ]
        return self._streamed[index]

    def _usage(self) -> CompletionUsage:
        usage = self._generation.usage
        if self._body.shows_prompt_alone:  # the token that the engine made beside is not shown
            usage.completion_tokens = 0
            usage.total_tokens = usage.prompt_tokens
        return usage

    def _chunk(self, choices: list[CompletionChoice]) -> Completion:
        chunk = self._envelope(choices)
        if self._body.wants_usage:
            chunk.usage = self._usage() if self._body.wants_continuous_usage else None
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

    def _visible_tokens(self, request: Request) -> VisibleTokens:
        params = request.params
        return VisibleTokens(
            self._tokenizer.spelling(skip_special_tokens=params.skip_special_tokens),
            hidden_stop_ids=hidden_stop_ids(request),
        )


def _choice(
    index: int,
    text: str,
    logprobs: Logprobs | None,
    part: CompletionOutput | OutputPiece | None,
    extras: dict[str, Any] | None = None,
) -> CompletionChoice:
    # Without validation: in a stream the reason is null until the end, which the type forbids.
    return CompletionChoice.model_construct(
        index=index,
        text=text,
        logprobs=logprobs,
        finish_reason=part.finish_reason if part else None,
        stop_reason=part.stop_reason if part else None,
        **(extras or {}),
    )


def _mean_logprob(sample: CompletionOutput) -> float:
    return (sample.cumulative_logprob or 0.0) / max(len(sample.token_ids), 1)
