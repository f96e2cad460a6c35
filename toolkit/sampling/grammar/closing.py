"""Let an answer without a limit of its own end in good form before its budget does.

A random model never ends a string by itself, so the tokens that an answer may have are counted.
As they run out, every token is checked: one after which the rest of the budget would no longer do
is replaced by the next one of an ending that does. Before that, how far the nearest ending is gets
looked up now and then, more often the less room there is.
"""

from __future__ import annotations

from typing import Any

from toolkit.errors import InvalidRequest
from toolkit.sampling.grammar.ending import EndingFinder

__all__ = ["DEFAULT_BUDGET", "Closing"]

# Output tokens of an answer of a given form for which no max_tokens was given: some four pages.
DEFAULT_BUDGET = 4096
# An ending is looked up again before it could have come to take what room is left, if each token
# lengthens it by no more than this, or by what was seen before.
_LIKELY_GROWTH = 16


class Closing:
    """How far one answer is from its end, and the way there.

    Args:
        finder: Finds endings.
        room: Output tokens that fit the context: more than the budget, but the end of all.
    """

    def __init__(self, finder: EndingFinder, room: int) -> None:
        self._finder = finder
        self._room = room
        self.budget = min(DEFAULT_BUDGET, room)
        self._path: list[int] = []
        self._found_at = -1  # the number of tokens behind which the path begins
        self._next_look = 0
        self._growth = float(_LIKELY_GROWTH)

    def look_ahead(self, matcher: Any, num_tokens: int) -> None:
        """Find out how far the end is, if that is due; behind ``num_tokens`` output tokens.

        Raises:
            InvalidRequest: no ending was found that fits the context.
        """
        if num_tokens < self._next_look or self._found_at == num_tokens:
            return
        path = self._finder.find(matcher, limit=self._room - num_tokens)
        if path is None and num_tokens == 0:
            raise InvalidRequest(
                f"the context has room for {self._room} more tokens, in which no answer of the "
                "form that structured_outputs asks for was found; shorten the prompt or the form",
                param="structured_outputs",
            )
        if path is None:  # the answer will be cut: the only one honest way that is left
            self._next_look = self._room
            return
        self._keep(path, num_tokens)

    def guard(self, matcher: Any, token_id: int, num_tokens: int) -> int | None:
        """Return the token to go on with: this one, or that of the known ending.

        The matcher has taken ``token_id`` as output token number ``num_tokens``; it is led to take
        the other one instead. None: neither, the answer ends before it.
        """
        is_known = self._found_at == num_tokens - 1
        if is_known and self._path and self._path[0] == token_id:
            self._path, self._found_at = self._path[1:], num_tokens
            return token_id
        if not is_known or num_tokens < self._next_look:
            return token_id
        path = self._finder.find_again(matcher, limit=self.budget - num_tokens)
        if path is not None:
            self._keep(path, num_tokens)
            return token_id
        matcher.rollback(1)
        if not self._path:  # it was complete
            return None
        forced, *rest = self._path
        matcher.consume_token(forced)
        self._path, self._found_at, self._next_look = rest, num_tokens, num_tokens + 1
        return forced

    def _keep(self, path: list[int], num_tokens: int) -> None:
        """Remember an ending, and say when to look again."""
        if self._found_at >= 0:
            passed = max(1, num_tokens - self._found_at)
            self._growth = max(self._growth, (len(path) - len(self._path)) / passed)
        self.budget = min(self._room, max(self.budget, num_tokens + len(path)))
        self._path, self._found_at = path, num_tokens
        slack = self.budget - num_tokens - len(path)
        self._next_look = num_tokens + max(1, int(slack / self._growth))
