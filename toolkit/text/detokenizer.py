"""Turn a request's tokens into text as they come, never showing half a character."""

from __future__ import annotations

import codecs

from toolkit.text.spelling import Spelling
from toolkit.text.stop_strings import StopStrings

__all__ = ["IncrementalText"]


class IncrementalText:
    r"""The text of one sample; implements ``toolkit.request.OutputText``.

    Pieces joined are the text of all tokens decoded at once, invalid bytes included.

    Args:
        spelling: Gives the tokens' bytes.
        stops: Stop strings; the text ends where the first of them begins.
        include_stop: Whether the stop string stays in the text.

    >>> from toolkit.text.spelling import WindowSpelling
    >>> spelling = WindowSpelling(lambda token_ids: bytes(token_ids).decode(errors="replace"))
    >>> text = IncrementalText(spelling, StopStrings([]), include_stop=False)
    >>> [text.push(byte, check_stop=True) or text.take() for byte in "aé".encode()]
    ['a', '', 'é']
    """

    def __init__(self, spelling: Spelling, stops: StopStrings, *, include_stop: bool) -> None:
        self._spelling = spelling
        self._stops = stops
        self._include_stop = include_stop
        # Bytes that are no UTF-8 become U+FFFD in the way of every decoder known here.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_in_character = False
        self._text = ""
        self._pending = ""  # what was searched for stop strings beyond the text
        self._num_taken = 0
        self._finished = False

    @property
    def text(self) -> str:
        """All certain text so far; a stop string that has only begun is part of it."""
        return self._text

    def push(self, token_id: int, check_stop: bool) -> str | None:
        """Add a token; return the stop string that it completed, if any."""
        num_before = len(self._text)
        for spelled in self._spelling.push(token_id):
            self._text += self._decode(spelled.bytes)
        if not self._stops:
            return None
        # Text that is not certain yet counts: whoever stops at a line break stops at the token
        # that brings it, and not one later.
        searched, self._pending = self._pending, self._spelling.pending
        known = self._text + self._pending
        still_there = known.startswith(searched, num_before)
        num_searched = num_before + (len(searched) if still_there else 0)
        match = self._stops.find(known, num_searched) if check_stop else None
        if match is None:
            return None
        self._text = known[: match.end if self._include_stop else match.start]
        self._finished = True
        return match.stop

    def take(self) -> str:
        """Return the text that became certain since the last call."""
        certain = len(self._text)
        if self._stops and not self._finished:
            certain -= self._stops.num_held_back(self._text)
        new = self._text[self._num_taken : certain]
        self._num_taken = max(self._num_taken, certain)
        return new

    def finish(self) -> None:
        """Show what was held back; bytes that never became a character come out as U+FFFD."""
        if self._finished:
            return
        self._finished = True
        rest = b"".join(spelled.bytes for spelled in self._spelling.finish())
        self._text += self._utf8.decode(rest, final=True)

    def _decode(self, spelled: bytes) -> str:
        """Return the characters that some bytes make whole."""
        if spelled.isascii() and not self._is_in_character:  # most are, and the decoder is slow
            return spelled.decode("ascii")
        text = self._utf8.decode(spelled)
        self._is_in_character = bool(self._utf8.getstate()[0])
        return text
