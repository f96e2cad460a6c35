"""Follow one JSON value character by character, and know where its members stand."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["JsonScanner", "Span"]

_SPACE = " \t\n\r"
_WORDS = ("true", "false", "null")
# What a number may still become, and what it must be at its end.
_NUMBER_BEGUN = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*|(?:\.\d+)?(?:[eE][+-]?\d*))?)?")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
# Deeper JSON is refused by Python's own parser, too.
_MAX_DEPTH = 500


class Span(NamedTuple):
    """A place in the scanned text; the end is None while the value goes on."""

    start: int
    end: int | None = None


class JsonScanner:
    """Scans one value, whose own keys must not repeat; positions count from its beginning.

    >>> scanner = JsonScanner()
    >>> scanner.push('{"name": "add", "arguments": {"a', 0)
    32
    >>> scanner.members
    {'name': Span(start=9, end=14), 'arguments': Span(start=29, end=None)}
    >>> scanner.is_complete, scanner.is_broken
    (False, False)
    """

    def __init__(self) -> None:
        self.members: dict[str, Span] = {}
        self.is_complete = False
        self.is_broken = False
        self.num_scanned = 0
        self._open: list[str] = []  # brackets
        self._expects = "value"
        self._atom = ""  # a number, a word or a key, as far as it has come
        self._escape = ""  # in a string: what follows a backslash
        self._key = ""
        self._member = ""
        self._is_key = False

    def push(self, text: str, start: int) -> int:
        """Scan a text from ``start`` on; return where the value ended, broke, or the text ended."""
        position = start
        while position < len(text) and not self.is_complete and not self.is_broken:
            if self._scan(text[position]):
                position += 1
                self.num_scanned += 1
        return position

    def _scan(self, character: str) -> bool:
        """Take a character; return False to be given it again, or if it breaks the value."""
        if self._expects == "string":
            return self._in_string(character)
        if self._expects == "atom":
            return self._in_atom(character)
        if character in _SPACE:
            return self._took(bool(self._open))
        if self._expects in ("value", "value or end"):
            return self._value(character)
        if self._expects in ("key", "key or end"):
            return self._key_or_end(character)
        if self._expects == "colon":
            self._expects = "value"
            return self._took(character == ":")
        return self._comma_or_end(character)

    def _took(self, is_right: bool) -> bool:
        self.is_broken = not is_right
        return is_right

    def _value(self, character: str) -> bool:
        if character == "]" and self._expects == "value or end":
            return self._close(character)
        if self._open == ["{"]:
            if self._key in self.members:  # what to take of two is anybody's guess
                return self._took(False)
            self._member = self._key  # keys inside of the member follow
            self.members[self._member] = Span(self.num_scanned)
        if character == '"':
            self._expects, self._is_key = "string", False
        elif character in "{[":
            self._open.append(character)
            self._expects = "key or end" if character == "{" else "value or end"
            return self._took(len(self._open) <= _MAX_DEPTH)
        elif character in "-0123456789tfn":
            self._expects, self._atom = "atom", character
        else:
            return self._took(False)
        return True

    def _key_or_end(self, character: str) -> bool:
        if character == "}" and self._expects == "key or end":
            return self._close(character)
        self._expects, self._is_key, self._key = "string", True, ""
        return self._took(character == '"')

    def _comma_or_end(self, character: str) -> bool:
        if character != ",":
            return self._close(character)
        self._expects = "key" if self._open[-1] == "{" else "value"
        return True

    def _close(self, character: str) -> bool:
        if character != {"{": "}", "[": "]"}[self._open[-1]]:
            return self._took(False)
        self._open.pop()
        self._end_value(self.num_scanned + 1)
        return True

    def _in_string(self, character: str) -> bool:
        if self._escape:
            return self._in_escape(character)
        if character == '"':
            if self._is_key:
                self._expects = "colon"
            else:
                self._end_value(self.num_scanned + 1)
            return True
        if character == "\\":
            self._escape = character
        elif self._is_key:
            self._key += character
        return self._took(character >= " ")

    def _in_escape(self, character: str) -> bool:
        self._escape += character
        if self._escape[1] == "u":
            is_right = len(self._escape) == 2 or character in "0123456789abcdefABCDEF"
            is_whole = len(self._escape) == 6
        else:
            is_right, is_whole = character in '"\\/bfnrt', True
        if is_whole:
            # Keys that matter here are plain words: one with an escape is none of them.
            self._key += self._escape if self._is_key else ""
            self._escape = ""
        return self._took(is_right)

    def _in_atom(self, character: str) -> bool:
        grown = self._atom + character
        if grown[0] in "tfn":
            goes_on = any(word.startswith(grown) for word in _WORDS)
        else:
            goes_on = _NUMBER_BEGUN.fullmatch(grown) is not None
        if goes_on:
            self._atom = grown
        else:
            is_whole = self._atom in _WORDS or _NUMBER.fullmatch(self._atom) is not None
            if self._took(is_whole):
                self._end_value(self.num_scanned)
            return False
        return True

    def _end_value(self, end: int) -> None:
        if self._open == ["{"]:
            self.members[self._member] = Span(self.members[self._member].start, end)
        self._expects = "comma or end"
        self.is_complete = not self._open
