"""Turn a request's tokens into text as they come, never showing half a character."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tokenizers import Tokenizer as RustTokenizer
from tokenizers.decoders import DecodeStream

from toolkit.text.stop_strings import StopStrings

__all__ = ["IncrementalText", "StreamDecoder", "WindowDecoder"]

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class PieceDecoder(Protocol):
    """Decodes one token after another."""

    def step(self, token_id: int) -> str:
        """Return the text that became certain with this token, possibly none."""
        ...


class StreamDecoder:
    """The tokenizers library's own incremental decoder: about a microsecond per token."""

    def __init__(self, tokenizer: RustTokenizer, *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=skip_special_tokens)

    def step(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        return self._stream.step(self._tokenizer, token_id) or ""


class WindowDecoder:
    """The same for tokenizers written in Python: decode a short window and see what it adds."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shown = ""

    def step(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(_INCOMPLETE) or len(text) <= len(self._shown):
            return ""
        new = text[len(self._shown) :]
        # The last token stays as context: how the next one is spaced may depend on it.
        self._window = self._window[-1:]
        self._shown = self._decode(self._window)
        return new


class IncrementalText:
    """The text of one sample; implements ``toolkit.request.OutputText``.

    Args:
        pieces: Decodes token by token.
        decode_all: Decodes all tokens at once; used at the end, for what never became certain.
        stops: Stop strings; the text ends where the first of them begins.
        include_stop: Whether the stop string stays in the text.
    """

    def __init__(
        self,
        pieces: PieceDecoder,
        decode_all: Callable[[list[int]], str],
        stops: StopStrings,
        *,
        include_stop: bool,
    ) -> None:
        self._pieces = pieces
        self._decode_all = decode_all
        self._stops = stops
        self._include_stop = include_stop
        self._token_ids: list[int] = []
        self._text = ""
        self._num_taken = 0
        self._finished = False

    @property
    def text(self) -> str:
        """All text so far; a stop string that has only begun is part of it."""
        return self._text

    def push(self, token_id: int, check_stop: bool) -> str | None:
        """Add a token; return the stop string that it completed, if any."""
        self._token_ids.append(token_id)
        num_searched = len(self._text)
        self._text += self._pieces.step(token_id)
        if not self._stops or not check_stop:
            return None
        match = self._stops.find(self._text, num_searched)
        if match is None:
            return None
        self._text = self._text[: match.end if self._include_stop else match.start]
        self._finished = True
        return match.stop

    def take(self) -> str:
        """Return the text that became certain since the last call."""
        certain = len(self._text)
        if not self._finished:
            certain -= self._stops.num_held_back(self._text)
        new = self._text[self._num_taken : certain]
        self._num_taken = max(self._num_taken, certain)
        return new

    def finish(self) -> None:
        """Show what was held back; bytes that never became a character come out as U+FFFD."""
        if self._finished:
            return
        self._finished = True
        whole = self._decode_all(self._token_ids)
        if whole.startswith(self._text):
            self._text = whole
