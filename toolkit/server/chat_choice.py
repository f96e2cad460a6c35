"""One choice of a chat answer while it grows: its deltas, its log-probabilities, its tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from toolkit.request import CompletionOutput, OutputPiece, Request
from toolkit.server.logprobs import TokenEntry, VisibleTokens, hidden_stop_ids
from toolkit.server.turns import ChatTurn
from toolkit.text import ContentDelta, Spelling, Tokenizer
from toolkit.text.turn_deltas import TurnDelta

__all__ = ["ChatChoice"]


class ChatChoice:
    """Takes the pieces of one sample, or all of it at once.

    Args:
        turn: Tells how to take the text apart.
        tokenizer: Spells the tokens.
        request: Says how the sample was drawn, and what of it is text.
        streams: Whether deltas go out before the turn is known to its end.
        keeps_token_ids: Whether the tokens are asked for.
    """

    def __init__(
        self,
        turn: ChatTurn,
        tokenizer: Tokenizer,
        request: Request,
        *,
        streams: bool,
        keeps_token_ids: bool = False,
    ) -> None:
        self._turn = turn
        self._tokenizer = tokenizer
        self._params = request.params
        self._hidden_stop_ids = hidden_stop_ids(request)
        self._keeps_token_ids = keeps_token_ids
        self._parser = None if turn.is_plain else turn.parser(streams=streams)
        self._thought = _ThoughtTokens(self._spelling()) if turn.style.think is not None else None
        self._visible: VisibleTokens | None = None
        self._entries: list[TokenEntry] = []
        self._token_ids: list[int] = []

    def push(self, part: CompletionOutput | OutputPiece) -> list[TurnDelta]:
        """Add what came; return what goes out."""
        if self._keeps_token_ids:
            self._token_ids += part.token_ids
        if part.logprobs is not None:
            if self._visible is None:
                self._visible = VisibleTokens(
                    self._spelling(), hidden_stop_ids=self._hidden_stop_ids
                )
            self._entries += self._visible.take(part)
        if self._parser is None:
            return [ContentDelta(part.text)] if part.text else []
        deltas = self._parser.push(part.text)
        if part.finish_reason is not None:
            deltas += self._parser.finish()
        if self._thought is not None:
            self._thought.add(part.token_ids, self._parser.content_start)
        return deltas

    def take_entries(self) -> list[TokenEntry] | None:
        """Return the entries that go out with the next delta; those of reasoning never do.

        None: log-probabilities were not asked for.
        """
        if self._visible is None:
            return None
        start = 0 if self._parser is None else self._parser.content_start
        if start is None:  # all of it may be reasoning
            return []
        entries, self._entries = self._entries, []
        return [_from(entry, start) for entry in entries if _end(entry) > start or not start]

    def take_token_ids(self) -> list[int]:
        """Return the tokens that came since the last call."""
        token_ids, self._token_ids = self._token_ids, []
        return token_ids

    def finish_reason(self, reason: str | None) -> str | None:
        """Return OpenAI's reason for the end."""
        made_calls = self._parser is not None and self._parser.num_calls > 0
        made_calls = made_calls and not self.has_broken_call
        return self._turn.finish_reason(reason, made_calls=made_calls)

    @property
    def has_broken_call(self) -> bool:
        """Whether a call has not come to its end."""
        return self._parser is not None and self._parser.has_broken_call

    @property
    def num_reasoning_tokens(self) -> int:
        """The tokens whose text begins in the reasoning."""
        return self._thought.count if self._thought is not None else 0

    def _spelling(self) -> Spelling:
        return self._tokenizer.spelling(
            skip_special_tokens=self._params.skip_special_tokens,
            shown_ids=self._params.shown_special_token_ids or (),
        )


class _ThoughtTokens:
    """Counts the tokens of the reasoning: those whose text begins before the content's.

    Args:
        spelling: Gives the bytes of the tokens.
    """

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_characters = 0
        self._starts: list[int] = []
        self._is_over = False
        self.count = 0

    def add(self, token_ids: Sequence[int], content_start: int | None) -> None:
        """Add tokens; ``content_start`` is None while the reasoning goes on."""
        if self._is_over:
            return
        for token_id in token_ids:
            for spelled in self._spelling.push(token_id):
                self._starts.append(self._num_characters)
                self._num_characters += len(self._utf8.decode(spelled.bytes))
        self._is_over = content_start is not None
        if content_start is not None:
            self._starts = [start for start in self._starts if start < content_start]
        self.count = len(self._starts)


def _end(entry: TokenEntry) -> int:
    return entry.start + len(entry.bytes.decode(errors="replace"))


def _from(entry: TokenEntry, start: int) -> TokenEntry:
    """Return an entry without the text before a place; a token may hold the last of a tag."""
    if entry.start >= start:
        return entry
    text = entry.bytes.decode(errors="replace")[start - entry.start :]
    return entry._replace(start=start, bytes=text.encode())
