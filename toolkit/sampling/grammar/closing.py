"""Let an answer without a limit of its own end in good form before its budget does.

A random model never ends a string by itself, so the tokens that an answer may have are counted.
As they run out, every token is checked: one after which the rest of the budget would no longer do
is replaced by the next one of an ending that does. Before that, how far the nearest ending is gets
looked up now and then, more often the less room there is.

All this happens between two steps of everybody's, so what it may cost is bounded: on average a few
calls into the matcher for each token of the answer, and no look takes more than some sixty. What
it comes to depends on this answer alone. Where that is not enough to know an ending, the answer is
led on by the tokens that tend to close things once it would be time to end; if that does not end
it before the context is full, it is cut there with "length".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.sampling.grammar.effort import Effort
from toolkit.sampling.grammar.ending import EndingFinder

__all__ = ["DEFAULT_BUDGET", "Closing"]

# Output tokens of an answer of a given form for which no max_tokens was given: some four pages.
DEFAULT_BUDGET = 4096
# An ending is looked up again before it could have come to take what room is left, if each token
# lengthens it by no more than this, or by what was seen before.
_LIKELY_GROWTH = 16
# Calls that an answer may spend on its endings: for each token, of which it saves up what one look
# takes, some half a millisecond; it looks when it has enough to find what is near.
_CALLS_PER_TOKEN = 4
_CALLS_PER_LOOK = 64
_LEAST_CALLS = 16
# Of these, as many are left for the ways that know no other ending.
_CALLS_FROM_NOTHING = 24
# After a look that found nothing for its effort the next one waits twice as long, up to this.
_LONGEST_WAIT = 64


class Closing:
    """How far one answer is from its end, and the way there.

    Args:
        finder: Finds endings.
        room: Output tokens that fit the context: more than the budget, but the end of all.
        ending: One of the whole answer, before its first token.
    """

    def __init__(self, finder: EndingFinder, room: int, ending: list[int]) -> None:
        self._finder = finder
        self._room = room
        self.budget = min(DEFAULT_BUDGET, room)
        self._whole = ending
        self._path: list[int] = []
        self._found_at = -1  # the number of tokens behind which the path begins
        self._next_look = 0
        self._growth = float(_LIKELY_GROWTH)
        self._calls = _CALLS_PER_LOOK
        self._wait = 1
        self._keep(ending, 0)

    def look_ahead(self, matcher: Any, num_tokens: int) -> None:
        """Find out how far the end is, if that is due; behind ``num_tokens`` output tokens."""
        self._calls = min(_CALLS_PER_LOOK, self._calls + _CALLS_PER_TOKEN)
        if num_tokens < self._next_look or self._found_at == num_tokens:
            return
        if self._calls < _LEAST_CALLS:
            return
        path, _ = self._find(matcher, self._room - num_tokens)
        if path is not None:
            self._keep(path, num_tokens)
            return
        self._next_look = num_tokens + self._wait
        self._wait = min(_LONGEST_WAIT, 2 * self._wait)

    def guard(
        self, matcher: Any, token_id: int, num_tokens: int, mask: NDArray[np.uint32]
    ) -> int | None:
        """Return the token to go on with: this one, or one that leads to the end.

        The matcher has taken ``token_id`` as output token number ``num_tokens``; it is led to take
        the other one instead. None: neither, the answer ends before it.

        Args:
            matcher: Where the grammar stands behind the token.
            token_id: The token that was sampled.
            num_tokens: Output tokens with it.
            mask: What could be sampled.
        """
        is_known = self._found_at == num_tokens - 1
        if is_known and self._path and self._path[0] == token_id:
            self._path, self._found_at = self._path[1:], num_tokens
            return token_id
        if is_known and num_tokens >= self._next_look:
            path, is_certain = self._find(matcher, self.budget - num_tokens)
            if path is not None:
                self._keep(path, num_tokens)
                return token_id
            if not is_certain and not self._is_late(num_tokens):
                return token_id
        elif is_known or not self._is_late(num_tokens):
            return token_id
        matcher.rollback(1)
        if matcher.is_accepting():
            return None
        forced = self._path[0] if is_known else self._finder.best_of(mask)
        if forced is None or not matcher.consume_token(forced):
            return None
        if is_known:
            self._path, self._found_at = self._path[1:], num_tokens
            self._next_look = num_tokens + 1
        return forced

    def _find(self, matcher: Any, limit: int) -> tuple[list[int] | None, bool]:
        """Look for an ending; return it, and whether there is none if none was found."""
        effort = Effort(self._calls)
        near = effort.part(max(_LEAST_CALLS, self._calls - _CALLS_FROM_NOTHING))
        known = [self._path, self._whole]
        path = self._finder.find_near(matcher, known, limit=limit, effort=near)
        effort.give_back(near)
        if path is None:
            path = self._finder.find(matcher, limit=limit, effort=effort)
        self._calls = effort.left
        return path, not (near.is_spent and effort.is_spent)

    def _is_late(self, num_tokens: int) -> bool:
        """Whether an ending may take what is left of the budget, as far as can be guessed.

        Where none is known from near here, one may be as long as that of the whole answer, and
        longer by half a token for each since: that is much for an answer that has come far.
        """
        since = num_tokens - self._found_at
        near = len(self._path) + _LIKELY_GROWTH if since <= 1 else 0
        far = max(len(self._path), len(self._whole)) + max(_LIKELY_GROWTH, since // 2)
        return num_tokens + max(near, min(far, self.budget // 2)) >= self.budget

    def _keep(self, path: list[int], num_tokens: int) -> None:
        """Remember an ending, and say when to look again."""
        if self._found_at >= 0:
            passed = max(1, num_tokens - self._found_at)
            self._growth = max(self._growth, (len(path) - len(self._path)) / passed)
        self.budget = min(self._room, max(self.budget, num_tokens + len(path)))
        self._path, self._found_at, self._wait = path, num_tokens, 1
        slack = self.budget - num_tokens - len(path)
        self._next_look = num_tokens + max(1, int(slack / self._growth))
