"""Which bytes each token of one text stands for, told as soon as no later token can change them.

The text and the log-probabilities' ``bytes`` both come from here, so that they agree.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from toolkit.text.token_bytes import TokenBytes

__all__ = ["SpelledToken", "Spelling", "VocabularySpelling", "WindowSpelling"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Of UTF-8: one that is not whole yet lacks at least one, and shows as at most a U+FFFD for each.
_MAX_CHARACTER_BYTES = 4
# Tokens that stay in the window: more than a character can be cut into.
_MIN_WINDOW = 8
# Tokens after which the window is cut even if no character is whole: then they are junk.
_MAX_WINDOW = 64


class SpelledToken(NamedTuple):
    """One token and the bytes that it adds to the text."""

    token_id: int
    bytes: bytes
    may_grow: bool = False  # if no token follows, finish() gives the rest of its bytes


class Spelling(Protocol):
    """The tokens of one text, spelled in the order in which they come."""

    def push(self, token_id: int) -> Sequence[SpelledToken]:
        """Add a token; return those, up to this one, whose bytes are now certain."""
        ...

    def finish(self) -> Sequence[SpelledToken]:
        """Return the tokens that waited, or the rest of one that may grow: no token follows."""
        ...

    @property
    def pending(self) -> str:
        """What the tokens that wait would add if the text ended here, in whole characters."""
        ...


class VocabularySpelling:
    """Spells by a table of the vocabulary: exact for the decoders that ``TokenBytes`` knows.

    Args:
        token_bytes: The table.
        skip_special_tokens: Whether special tokens are left out of the text.
        shown_ids: Special tokens that stay in it nevertheless.
    """

    def __init__(
        self,
        token_bytes: TokenBytes,
        *,
        skip_special_tokens: bool,
        shown_ids: Collection[int] = (),
    ) -> None:
        self._token_bytes = token_bytes
        self._skip = skip_special_tokens
        self._shown_ids = shown_ids
        self._is_start = True
        self._row: _ByteRow | None = None

    def push(self, token_id: int) -> Sequence[SpelledToken]:
        """Add a token; only tokens that spell bytes one by one may have to wait."""
        token = self._token_bytes.token(token_id)
        is_skipped = self._skip and token.is_special and token_id not in self._shown_ids
        if not token.is_known or is_skipped:
            nothing = SpelledToken(token_id, b"")
            return (nothing,) if self._row is None else self._row.push_nothing(nothing)
        spelled = SpelledToken(token_id, token.at_start if self._is_start else token.inside)
        if token.is_lone_byte:
            self._row = self._row or _ByteRow()
            own = self._row.push_byte(spelled, token.inside)
        else:
            own = (*self.finish(), spelled) if self._row is not None else (spelled,)
        self._is_start = False
        return own

    def finish(self) -> Sequence[SpelledToken]:
        """Return what waited for the end of its row."""
        row, self._row = self._row, None
        return () if row is None else row.finish()

    @property
    def pending(self) -> str:
        """The text of an open row of bytes, if it is whole characters."""
        return "" if self._row is None else self._row.text


class _ByteRow:
    """Tokens that spell bytes one by one, up to the first that does not.

    The tokenizers library's ``ByteFallback`` shows them as text if all of them together are UTF-8,
    else as one U+FFFD each. So nothing is certain before the row ends or breaks, and a stream waits
    for that: most often one token, in scripts that a vocabulary lacks a word.
    """

    def __init__(self) -> None:
        self._waiting: list[SpelledToken] = []
        self._if_broken: list[SpelledToken] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._is_broken = False

    def push_byte(self, spelled: SpelledToken, byte: bytes) -> Sequence[SpelledToken]:
        """Add a token; return those that are certain.

        ``spelled`` holds what the byte adds to the text, which may lose its first space.
        """
        if not self._is_broken:
            try:
                self._utf8.decode(byte)
            except UnicodeDecodeError:
                self._is_broken = True
        return self._push(spelled, SpelledToken(spelled.token_id, _REPLACEMENT.encode()))

    def push_nothing(self, spelled: SpelledToken) -> Sequence[SpelledToken]:
        """Add a token without text, which does not end the row."""
        return self._push(spelled, spelled)

    def finish(self) -> Sequence[SpelledToken]:
        """Return the tokens that wait."""
        is_whole = not self._utf8.getstate()[0]
        return self._waiting if is_whole else self._if_broken

    @property
    def text(self) -> str:
        """The row as text, if it is whole characters so far."""
        if self._is_broken or self._utf8.getstate()[0]:
            return ""
        return b"".join(spelled.bytes for spelled in self._waiting).decode()

    def _push(self, spelled: SpelledToken, if_broken: SpelledToken) -> Sequence[SpelledToken]:
        self._waiting.append(spelled)
        self._if_broken.append(if_broken)
        if not self._is_broken:
            return ()
        certain = self._if_broken
        self._waiting, self._if_broken = [], []
        return certain


class WindowSpelling:
    """Spells by decoding the last tokens and seeing what the newest adds; for any tokenizer.

    A character belongs to the token that completes it.

    Args:
        decode: Turns tokens into text.
        skipped_ids: Tokens that are left out of the text.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], *, skipped_ids: Collection[int] = ()
    ) -> None:
        self._decode = decode
        self._skipped_ids = skipped_ids
        self._window: list[int] = []
        self._told = ""  # of the window's text
        self._num_open = 0  # tokens since characters were whole last
        self._next_start = 0  # where the window may be cut: characters are whole there
        self._newest: SpelledToken | None = None

    def push(self, token_id: int) -> Sequence[SpelledToken]:
        """Add a token; it may grow while a character is incomplete."""
        added, may_grow = "", self._newest is not None and self._newest.may_grow
        if token_id not in self._skipped_ids:
            self._window.append(token_id)
            added, may_grow = self._new_text()
        self._newest = SpelledToken(token_id, added.encode(), may_grow)
        return (self._newest,)

    def finish(self) -> Sequence[SpelledToken]:
        """Return what never became a character, as the newest token's."""
        newest, self._newest = self._newest, None
        if newest is None or not newest.may_grow:
            return ()
        rest = self._decode(self._window)[len(self._told) :]
        return (SpelledToken(newest.token_id, rest.encode()),)

    @property
    def pending(self) -> str:
        """Nothing: no token waits."""
        return ""

    def _new_text(self) -> tuple[str, bool]:
        """Return the whole characters that are new, and whether more may come of these tokens."""
        text = self._decode(self._window)
        whole = self._whole_characters(text)
        added = ""
        # Some decoders show text otherwise while a character is incomplete: that will pass.
        is_steady = whole.startswith(self._told)
        if is_steady:
            added, self._told = whole[len(self._told) :], whole
        may_grow = not is_steady or len(whole) < len(text)
        self._num_open = self._num_open + 1 if may_grow else 0
        self._shorten(is_clean=not may_grow, num_untold=len(text) - len(self._told))
        return added, may_grow

    def _whole_characters(self, text: str) -> str:
        """Return a text without U+FFFD at its end that may be a character's beginning."""
        whole = text.rstrip(_REPLACEMENT)
        if self._num_open < _MAX_CHARACTER_BYTES:
            return whole
        return text[: max(len(whole), len(text) - _MAX_CHARACTER_BYTES + 1)]

    def _shorten(self, *, is_clean: bool, num_untold: int) -> None:
        """Drop early tokens: decoding the others shows the same last characters."""
        size = len(self._window)
        if is_clean and not self._next_start and size >= _MIN_WINDOW:
            self._next_start = size
        if is_clean and self._next_start and size >= self._next_start + _MIN_WINDOW:
            self._window = self._window[self._next_start :]
        elif size >= _MAX_WINDOW:
            self._window = self._window[-_MIN_WINDOW:]
        else:
            return
        self._next_start = 0
        text = self._decode(self._window)
        self._told = text[: max(0, len(text) - num_untold)]
