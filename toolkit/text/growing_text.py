"""Text that arrives in pieces, and readers that wait for more of it.

A reader is a generator: where it needs text that has not come it yields, and it goes on when more
is there. So a grammar can be written down as if the whole text were known, and what is read does
not depend on where the text was cut.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

__all__ = ["GrowingText", "Reading"]

T = TypeVar("T")

Reading = Generator[None, None, T]
"""A reader that returns a T; it yields while it waits for text."""


class GrowingText:
    """A text with a place in it: what lies before was read.

    >>> text = GrowingText()
    >>> reading = text.accept("<call>")
    >>> text.add("<ca"); next(reading)
    >>> text.add("ll>")
    >>> try:
    ...     next(reading)
    ... except StopIteration as end:
    ...     end.value, text.position
    (True, 6)
    """

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.is_closed = False

    def add(self, piece: str) -> None:
        """Add a piece at the end."""
        self.text += piece

    def close(self) -> None:
        """Say that nothing follows."""
        self.is_closed = True

    @property
    def has_more(self) -> bool:
        """Whether something that has come was not read."""
        return self.position < len(self.text)

    def more(self) -> Reading[bool]:
        """Wait for a character; return whether there is one."""
        while not self.has_more:
            if self.is_closed:
                return False
            yield
        return True

    def skip_space(self, others: str = "") -> Reading[None]:
        """Read white space, and characters of ``others``."""
        while (yield from self.more()):
            character = self.text[self.position]
            if not character.isspace() and character not in others:
                return
            self.position += 1

    def word(self, characters: str) -> Reading[str]:
        """Read as many of some characters as come."""
        start = self.position
        while (yield from self.more()) and self.text[self.position] in characters:
            self.position += 1
        return self.text[start : self.position]

    def accept(self, expected: str, *, or_begun: bool = False) -> Reading[bool]:
        """Read an expected text if it comes next, else nothing; return whether it was read.

        ``or_begun``: where all text ends, the beginning of the expected one will do.
        """
        while not self.text.startswith(expected, self.position):
            rest = self.text[self.position :]
            if not expected.startswith(rest):
                return False
            if self.is_closed:
                self.position += len(rest) if or_begun else 0
                return or_begun
            yield
        self.position += len(expected)
        return True

    def find(self, wanted: Sequence[str], start: int) -> tuple[int, str | None]:
        """Return where the first of some texts begins, from ``start`` on, and which one.

        If there is none: the place up to which it is certain that none begins, and None.
        """
        found = [(at, each) for each in wanted if (at := self.text.find(each, start)) >= 0]
        if found:
            return min(found, key=lambda each: (each[0], -len(each[1])))
        end = len(self.text)
        if self.is_closed:
            return end, None
        return end - max((self._num_begun(each, start) for each in wanted), default=0), None

    def _num_begun(self, wanted: str, start: int) -> int:
        """Return how many characters at the end could begin a text."""
        for count in range(min(len(wanted) - 1, len(self.text) - start), 0, -1):
            if self.text.endswith(wanted[:count]):
                return count
        return 0
