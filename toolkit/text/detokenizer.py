"""Turn a request's tokens into text as they come, never showing half a character."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tokenizers import Tokenizer as RustTokenizer
from tokenizers.decoders import DecodeStream

from toolkit.text.stop_strings import StopStrings

__all__ = ["IncrementalText", "StreamDecoder", "WindowDecoder"]

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
# Of UTF-8: after more tokens than this, a character that has not come will not come.
_MAX_CHARACTER_BYTES = 4


class PieceDecoder(Protocol):
    """Decodes one token after another."""

    def step(self, token_id: int) -> str:
        """Return the text that became certain with this token, possibly none."""
        ...


class StreamDecoder:
    """The tokenizers library's own incremental decoder: about a microsecond per token."""

    def __init__(self, tokenizer: RustTokenizer, *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._stream = DecodeStream(skip_special_tokens=skip_special_tokens)
        self._fallback: WindowDecoder | None = None

    def step(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        if self._fallback is None:
            try:
                return self._stream.step(self._tokenizer, token_id) or ""
            except Exception:  # the library knows no narrower one
                # Tokenizers that spell bytes one by one can take back what they showed, after
                # bytes that are no UTF-8; the stream gives up then, and we go on without it.
                self._fallback = WindowDecoder(self._decode)
        return self._fallback.step(token_id)

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=self._skip))


class WindowDecoder:
    """The same for any tokenizer: decode a short window and see what it adds."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []  # tokens whose text was shown last
        self._fresh: list[int] = []  # tokens since then

    def step(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        self._fresh.append(token_id)
        shown = self._decode(self._context)
        text = self._decode(self._context + self._fresh)
        may_grow = text.endswith(_INCOMPLETE) and len(self._fresh) <= _MAX_CHARACTER_BYTES
        if may_grow or len(text) <= len(shown) or not text.startswith(shown):
            if len(self._fresh) <= _MAX_CHARACTER_BYTES:
                return ""
            # Bytes that never become a character: show them as they are, and forget them.
            shown, text = "", self._decode(self._fresh)
        # What was shown stays as context: how the next token is spaced may depend on it.
        self._context, self._fresh = self._fresh, []
        return text[len(shown) :]


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
