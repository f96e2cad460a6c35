"""Answers and vocabularies made by hand, for widgets that show tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.request import CompletionOutput, Logprob, RequestOutput

# Token 0 is special; 8 and 9 are the two halves of "é".
PIECES = [b"<end>", b"The", b" cat", b" sat", b" ran", b".", b"\n", b"\t", b"\xc3", b"\xa9", b""]


class TokenBytes:
    special_ids = frozenset({0})

    def __call__(self, token_id: int) -> bytes:
        return PIECES[token_id]


class Words:
    """A tokenizer of the pieces above."""

    token_bytes = TokenBytes()

    def token_text(self, token_id: int) -> str:
        return PIECES[token_id].decode(errors="replace")


def awaited(page: Any, kind: str, is_it: Callable[[dict[str, Any]], bool] = lambda _: True) -> Any:
    """The newest frame of a kind whose facts are as wanted: it has come, or it comes."""
    for frame in reversed(page.frames):
        if frame.kind == kind and is_it(frame.meta):
            return frame
    while True:
        frame = page.wait(kind)
        if is_it(frame.meta):
            return frame


def logprobs_of(token_ids: list[int]) -> list[dict[int, Logprob]]:
    """Log-probabilities -0.5, -1.5, ... and ranks 1, 2, ..."""
    return [
        {token_id: Logprob(-0.5 - index, index + 1, Words().token_text(token_id))}
        for index, token_id in enumerate(token_ids)
    ]


def answer_of(
    *samples: list[int],
    request_id: str = "req-0",
    prompt: tuple[int, ...] = (1, 2),
    has_logprobs: bool = True,
    num_cached_tokens: int = 0,
    **kwargs: Any,
) -> RequestOutput:
    """An answer whose samples have these tokens."""
    return RequestOutput(
        request_id=request_id,
        prompt=None,
        prompt_token_ids=prompt,
        outputs=[
            CompletionOutput(
                index=index,
                text="",
                token_ids=tuple(token_ids),
                finish_reason="length",
                logprobs=logprobs_of(token_ids) if has_logprobs else None,
            )
            for index, token_ids in enumerate(samples)
        ],
        finished=True,
        num_cached_tokens=num_cached_tokens,
        **kwargs,
    )
