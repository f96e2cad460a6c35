"""Log-probabilities in OpenAI's two shapes, lined up with the text that was sent.

A token's entry goes out with the text it belongs to: text may be held back because a stop string
could begin in it or a character is incomplete, and what is cut off never shows its tokens. So the
joined ``bytes`` of all entries are the bytes of the text.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob, TopLogprob
from openai.types.completion_choice import Logprobs as CompletionLogprobs

from toolkit.request import Logprob
from toolkit.server.token_bytes import TokenBytes

__all__ = ["TokenEntry", "VisibleTokens", "chat_entries", "completion_entries"]

# JSON has no infinity; OpenAI and vLLM write this for a token that could not be drawn.
_LOWEST_LOGPROB = -9999.0


class TokenEntry(NamedTuple):
    """One output token: where its text starts, its bytes, and its candidates, itself first."""

    token_id: int
    start: int
    bytes: bytes
    candidates: Mapping[int, Logprob]


class VisibleTokens:
    """Holds the tokens of one sample until the text they belong to has been sent."""

    def __init__(self, token_bytes: TokenBytes, *, skip_special_tokens: bool) -> None:
        self._token_bytes = token_bytes
        self._skip_special = skip_special_tokens
        # Counts characters the way the text does: bytes that form none become U+FFFD.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_decoded = 0
        self._num_sent = 0
        self._is_start = True
        self._waiting: deque[TokenEntry] = deque()

    def take(
        self,
        token_ids: Sequence[int],
        candidates: Sequence[Mapping[int, Logprob]],
        *,
        sent: str,
        finish_reason: str | None,
    ) -> list[TokenEntry]:
        """Add tokens; with text to send, or at the end, return those whose text has started.

        At the end, tokens without text (end of sequence, a stop string) are left out.
        """
        for token_id, its_candidates in zip(token_ids, candidates, strict=True):
            own = self._bytes_in_text(token_id)
            self._waiting.append(TokenEntry(token_id, self._num_decoded, own, its_candidates))
            self._num_decoded += len(self._decoder.decode(own))
        self._num_sent += len(sent)
        ready: list[TokenEntry] = []
        if not sent and finish_reason is None:
            return ready
        while self._waiting and (
            self._waiting[0].start < self._num_sent or finish_reason == "length"
        ):
            ready.append(self._waiting.popleft())
        return ready

    def _bytes_in_text(self, token_id: int) -> bytes:
        if self._skip_special and self._token_bytes.is_special(token_id):
            return b""
        is_start, self._is_start = self._is_start, False
        return self._token_bytes.at_start(token_id) if is_start else self._token_bytes(token_id)


def chat_entries(
    entries: Iterable[TokenEntry], num_top: int, token_bytes: TokenBytes
) -> list[ChatCompletionTokenLogprob]:
    """Write entries as chat answers do."""
    return [
        ChatCompletionTokenLogprob(
            token=_name(token_bytes, entry.token_id),
            logprob=_finite(entry.candidates[entry.token_id]),
            bytes=list(entry.bytes),
            top_logprobs=[
                TopLogprob(
                    token=_name(token_bytes, token_id),
                    logprob=_finite(candidate),
                    bytes=list(token_bytes(token_id)),
                )
                for token_id, candidate in _best(entry.candidates, num_top)
            ],
        )
        for entry in entries
    ]


def completion_entries(
    entries: Iterable[TokenEntry], num_top: int, token_bytes: TokenBytes
) -> CompletionLogprobs:
    """Write entries as text completions do; the chosen token is always among the top ones."""
    entries = list(entries)
    return CompletionLogprobs(
        text_offset=[entry.start for entry in entries],
        token_logprobs=[_finite(entry.candidates[entry.token_id]) for entry in entries],
        tokens=[_name(token_bytes, entry.token_id) for entry in entries],
        top_logprobs=[
            {
                _name(token_bytes, token_id): _finite(candidate)
                for token_id, candidate in (
                    (entry.token_id, entry.candidates[entry.token_id]),
                    *_best(entry.candidates, num_top),
                )
            }
            for entry in entries
        ],
    )


def _best(candidates: Mapping[int, Logprob], num_top: int) -> list[tuple[int, Logprob]]:
    """Return the most likely candidates; the chosen token is among them only if it is one."""
    return sorted(candidates.items(), key=lambda item: -item[1].logprob)[:num_top]


def _name(token_bytes: TokenBytes, token_id: int) -> str:
    r"""Return a token as text; a part of a character is written like \xe2, as OpenAI does."""
    return token_bytes(token_id).decode(errors="backslashreplace")


def _finite(logprob: Logprob) -> float:
    return max(logprob.logprob, _LOWEST_LOGPROB)
