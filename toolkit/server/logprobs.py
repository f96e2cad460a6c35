"""Log-probabilities in OpenAI's two shapes, lined up with the text that was sent.

A token's entry goes out with the end of the text it belongs to: text may be held back because a
stop string could begin in it or a character is incomplete, and what is cut off has no bytes. So
the joined ``bytes`` of all entries are the bytes of the text; where they are no UTF-8, the text has
U+FFFD, as ``bytes.decode(errors="replace")`` writes it.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob, TopLogprob
from openai.types.completion_choice import Logprobs as CompletionLogprobs

from toolkit.request import CompletionOutput, Logprob, OutputPiece, Request
from toolkit.text import SpelledToken, Spelling, TokenBytes, Tokenizer

__all__ = [
    "EchoLogprobs",
    "TokenEntry",
    "VisibleTokens",
    "chat_entries",
    "completion_entries",
    "hidden_stop_ids",
    "prompt_entries",
    "prompt_logprobs",
]

# JSON has no infinity; OpenAI and vLLM write this for a token that could not be drawn.
_LOWEST_LOGPROB = -9999.0


class EchoLogprobs(CompletionLogprobs):
    """The log-probabilities of a completion; null for the first token of an echoed prompt."""

    token_logprobs: list[float | None] | None = None  # type: ignore[assignment]
    top_logprobs: list[dict[str, float] | None] | None = None  # type: ignore[assignment]


class TokenEntry(NamedTuple):
    """One token: where its text starts, its bytes, and its candidates, itself among them.

    The first token of a prompt has none: nothing predicts it.
    """

    token_id: int
    start: int
    bytes: bytes
    candidates: Mapping[int, Logprob]


class _Waiting(NamedTuple):
    """An entry whose text has not been sent, and the character that each of its bytes is in."""

    entry: TokenEntry
    characters: Sequence[int]
    may_grow: bool

    def with_rest(self, rest: bytes, characters: Sequence[int]) -> _Waiting:
        """Return it with more bytes."""
        grown = self.entry._replace(bytes=self.entry.bytes + rest)
        return _Waiting(grown, (*self.characters, *characters), may_grow=False)

    def until(self, end: int) -> TokenEntry:
        """Return the entry with those bytes that lie before a character."""
        num_bytes = sum(character < end for character in self.characters)
        return self.entry._replace(bytes=self.entry.bytes[:num_bytes])


class VisibleTokens:
    """Holds the tokens of one sample until the text they belong to has been sent.

    Args:
        spelling: Gives the bytes of the sample's tokens.
        hidden_stop_ids: Tokens that end a text without being part of it. Any other one that ends
            it is its last: one that completes a grammar, for example.
    """

    def __init__(self, spelling: Spelling, *, hidden_stop_ids: Collection[int] = ()) -> None:
        self._spelling = spelling
        self._hidden_stop_ids = hidden_stop_ids
        self._characters = _Characters()
        self._num_sent = 0
        self._unspelled: deque[Mapping[int, Logprob]] = deque()
        self._waiting: deque[_Waiting] = deque()

    def take(self, part: CompletionOutput | OutputPiece) -> list[TokenEntry]:
        """Add tokens, and the text that goes out with them; return those whose text is complete.

        At the end, tokens without text (end of sequence, a stop string) are left out.
        """
        token_ids = self._ids_in_text(part)
        logprobs = (part.logprobs or [])[: len(token_ids)]
        for token_id, candidates in zip(token_ids, logprobs, strict=True):
            self._unspelled.append(candidates)
            self._add(self._spelling.push(token_id))
        self._num_sent += len(part.text)
        ready = []
        while self._waiting and self._is_sent(self._waiting[0]):
            ready.append(self._waiting.popleft().entry)
        return ready if part.finish_reason is None else [*ready, *self._last(part.finish_reason)]

    def _ids_in_text(self, part: CompletionOutput | OutputPiece) -> Sequence[int]:
        """Return the tokens of a part that the text has; one that stopped the request is out."""
        token_ids = part.token_ids
        if part.finish_reason != "stop" or isinstance(part.stop_reason, str) or not token_ids:
            return token_ids
        return token_ids[:-1] if token_ids[-1] in self._hidden_stop_ids else token_ids

    def _is_sent(self, waiting: _Waiting) -> bool:
        is_newest = waiting is self._waiting[-1]
        last = waiting.characters[-1] if waiting.characters else waiting.entry.start
        return last < self._num_sent and not (waiting.may_grow and is_newest)

    def _last(self, finish_reason: str) -> list[TokenEntry]:
        """Return the entries at the end of the text, the last one cut where the text was."""
        self._add_rest()
        waiting = [
            each
            for each in self._waiting
            if each.entry.start < self._num_sent or finish_reason == "length"
        ]
        self._waiting.clear()
        return [each.until(self._num_sent) for each in waiting]

    def _add(self, certain: Iterable[SpelledToken]) -> None:
        for token_id, own, may_grow in certain:
            characters = self._characters.place(own)
            start = characters[0] if characters else self._characters.num_whole
            entry = TokenEntry(token_id, start, own, self._unspelled.popleft())
            self._waiting.append(_Waiting(entry, characters, may_grow))

    def _add_rest(self) -> None:
        rest = self._spelling.finish()
        if self._waiting and self._waiting[-1].may_grow:
            more = b"".join(spelled.bytes for spelled in rest)
            grown = self._waiting.pop().with_rest(more, self._characters.place(more))
            self._waiting.append(grown)
        else:
            self._add(rest)


class _Characters:
    """Counts characters the way the text does: bytes that form none become U+FFFD."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.num_whole = 0

    def place(self, own: bytes) -> list[int]:
        """Add bytes; return, for each, the number of the character that it is a part of."""
        return [self._place(byte) for byte in own]

    def _place(self, byte: int) -> int:
        self.num_whole += len(self._utf8.decode(bytes([byte])))
        open_bytes = self._utf8.getstate()[0]
        # Python's decoder waits with surrogates, though the second byte cannot continue the first.
        is_surrogate = open_bytes[:1] == b"\xed" and open_bytes[1:] >= b"\xa0"
        return self.num_whole - (not open_bytes) + is_surrogate


def hidden_stop_ids(request: Request) -> frozenset[int]:
    """Return the tokens that end a request's text without being part of it."""
    params = request.params
    if params.include_stop_str_in_output:
        return frozenset()
    own = frozenset() if params.ignore_eos else request.eos_token_ids
    return own.union(params.stop_token_ids or ())


def prompt_entries(tokenizer: Tokenizer, request: Request, text: str) -> list[TokenEntry]:
    """Return the entries of a prompt's tokens, lined up with the text that it is shown as.

    Args:
        tokenizer: The model's.
        request: Has the tokens, and their log-probabilities.
        text: What the answer shows of the prompt: with the special tokens that the client wrote,
            without those that the tokenizer added.
    """
    token_ids = request.prompt_token_ids
    is_literal = tokenizer.decode(token_ids, skip_special_tokens=False) == text
    shown = CompletionOutput(
        index=0,
        text=text,
        token_ids=token_ids,
        finish_reason="length",
        logprobs=[found or {} for found in request.prompt_logprobs or ()],
    )
    return VisibleTokens(tokenizer.spelling(skip_special_tokens=not is_literal)).take(shown)


def chat_entries(
    entries: Iterable[TokenEntry],
    num_top: int,
    token_bytes: TokenBytes,
    *,
    as_ids: bool | None = False,
) -> list[ChatCompletionTokenLogprob]:
    """Write entries as chat answers do; ``as_ids`` names tokens by id, as ``token_id:7``."""
    return [
        ChatCompletionTokenLogprob(
            token=_name(token_bytes, entry.token_id, as_ids),
            logprob=_finite(entry.candidates[entry.token_id]),
            bytes=list(entry.bytes),
            top_logprobs=[
                TopLogprob(
                    token=_name(token_bytes, token_id, as_ids),
                    logprob=_finite(candidate),
                    bytes=list(token_bytes(token_id)),
                )
                for token_id, candidate in _best(entry.candidates, num_top)
            ],
        )
        for entry in entries
    ]


def completion_entries(
    entries: Iterable[TokenEntry],
    num_top: int,
    token_bytes: TokenBytes,
    *,
    as_ids: bool | None = False,
) -> CompletionLogprobs:
    """Write entries as text completions do; the chosen token is always among the top ones.

    ``as_ids`` names tokens by id, as ``token_id:7``.
    """
    entries = list(entries)
    logprobs: list[float | None] = []
    top: list[dict[str, float] | None] = []
    for entry in entries:
        own = entry.candidates.get(entry.token_id)
        logprobs.append(None if own is None else _finite(own))
        top.append(None if own is None else _top(entry, own, num_top, token_bytes, as_ids))
    kind = EchoLogprobs if None in logprobs else CompletionLogprobs
    return kind.model_validate(
        {
            "text_offset": [entry.start for entry in entries],
            "token_logprobs": logprobs,
            "tokens": [_name(token_bytes, entry.token_id, as_ids) for entry in entries],
            "top_logprobs": top,
        }
    )


def prompt_logprobs(
    found: Sequence[Mapping[int, Logprob] | None], token_ids: Sequence[int], num_top: int
) -> list[dict[str, dict[str, float | int | str | None]] | None]:
    """Write the log-probabilities of a prompt as vLLM does: by token id, null for the first.

    Each has the prompt's own token and the ``num_top`` most likely ones.
    """
    return [
        {
            str(candidate_id): {
                "logprob": _finite(logprob),
                "rank": logprob.rank,
                "decoded_token": logprob.decoded_token,
            }
            for candidate_id, logprob in candidates.items()
            if candidate_id == token_id or (logprob.rank or 0) <= num_top
        }
        if candidates is not None
        else None
        for token_id, candidates in zip(token_ids, found, strict=True)
    ]


def _top(
    entry: TokenEntry, own: Logprob, num_top: int, token_bytes: TokenBytes, as_ids: bool | None
) -> dict[str, float]:
    shown = ((entry.token_id, own), *_best(entry.candidates, num_top))
    return {
        _name(token_bytes, token_id, as_ids): _finite(candidate) for token_id, candidate in shown
    }


def _best(candidates: Mapping[int, Logprob], num_top: int) -> list[tuple[int, Logprob]]:
    """Return the most likely candidates; the chosen token is among them only if it is one."""
    return sorted(candidates.items(), key=lambda item: -item[1].logprob)[:num_top]


def _name(token_bytes: TokenBytes, token_id: int, as_ids: bool | None) -> str:
    r"""Return a token as text; a part of a character is written like \xe2, as OpenAI does."""
    if as_ids:
        return f"token_id:{token_id}"
    return token_bytes(token_id).decode(errors="backslashreplace")


def _finite(logprob: Logprob) -> float:
    return max(logprob.logprob, _LOWEST_LOGPROB)
