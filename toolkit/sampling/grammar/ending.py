"""Find a short way for an answer to end from where its grammar stands.

No library tells the shortest ending, so one is looked for: a copy of the matcher is led on by
tokens that tend to close things, in several orders of preference, until the grammar accepts.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.sampling.grammar.vocabulary import TokenTable

__all__ = ["EndingFinder", "TokenCosts", "words_of"]

_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_RUN = re.compile(r"[^\\^$.|?*+()\[\]{}\"\n]{2,}")
# Of the words in a grammar, as many are tried as a tag or a tool has; a text longer is a sentence.
_MAX_WORDS = 64
_MAX_WORD_BYTES = 64
# One of each kind that may be the last of a text.
_KINDS = (b"0", b"a", b"A", b".", b'"', b")", b"]", b"}", b"\n", b" ")
# Whoever takes a token so often in a row does not come to an end that way; a string of so many
# characters that a schema asks for does.
_MAX_SAME = 1200
# Each way gets so long, whatever those before it took: in free text that a tag ends the first two
# find nothing for long, and the third finds the tag at once.
_LEAST_S = 0.1
# Of a character that has begun, which no word can follow.
_MAX_CHARACTER_TOKENS = 3

# Which token to try first, by the bytes that it is made of: what closes JSON, what separates its
# parts, digits, the letters of null, true and false, what opens, then all else; spaces come last
# because they lead nowhere, and backslashes because what follows them closes nothing.
_FAMILIES = (
    frozenset(b'"]}'),
    frozenset(b'"]}:,'),
    frozenset(b"0123456789"),
    frozenset(b"nultrefas"),
    frozenset(b'"]}:,[{-'),
    frozenset(range(33, 127)) - frozenset(b"\\"),
)
_SPACE_FAMILY, _OTHER_FAMILY = len(_FAMILIES) + 1, len(_FAMILIES)
_MAX_LENGTH = 1 << 8
# A use counts for more than any preference: all else is tried before a token comes again.
_USED = (_SPACE_FAMILY + 1) * 2 * _MAX_LENGTH


class TokenCosts:
    """How late each token of a table is tried on the way to an end."""

    def __init__(self, table: TokenTable) -> None:
        self.table = table
        costs = [_cost(own) for own in table.tokens]
        self.preferred: NDArray[np.int64] = np.array(costs, dtype=np.int64)
        is_single = np.array([len(own) == 1 for own in table.tokens])
        # Where each token has its turn, long ones would only be more to go through.
        self.in_turn = np.where(is_single, self.preferred, self.preferred + _USED // 2)
        self.kinds = [token_id for kind in _KINDS for token_id in table.cut(kind)]


class EndingFinder:
    """Looks for endings of one answer; the way that found the last one is tried first.

    Args:
        costs: Of a table's tokens.
        words: Texts of the grammar, in tokens: what ends free text is among them.
    """

    def __init__(self, costs: TokenCosts, words: Sequence[list[int]]) -> None:
        self._costs = costs
        self._words = words
        self._ways = [self._by_preference, self._in_turn, self._by_a_word, self._with_words]

    def find(self, matcher: Any, *, limit: int, deadline_s: float = math.inf) -> list[int] | None:
        """Return tokens after which the grammar accepts, or None if none were found.

        Args:
            matcher: Where the grammar stands; it is left there.
            limit: How many tokens there may be at most.
            deadline_s: When to give up, on the clock of ``time.monotonic``.
        """
        for place, way in enumerate(self._ways):
            least_s = time.monotonic() + _LEAST_S
            path = way(matcher.deep_copy(), limit, max(deadline_s, least_s))
            if path is not None:
                self._ways.insert(0, self._ways.pop(place))
                return path
        return None

    def find_again(self, matcher: Any, *, limit: int) -> list[int] | None:
        """Do the same, only in the way that found the last ending: that takes no long search."""
        return self._ways[0](matcher.deep_copy(), limit, math.inf)

    def _by_preference(self, matcher: Any, limit: int, deadline_s: float) -> list[int] | None:
        """Always take what closes best."""
        path: list[int] = []
        num_same = 0
        while not matcher.is_accepting():
            token_id = self._best(matcher, self._costs.preferred)
            num_same = num_same + 1 if path and path[-1] == token_id else 0
            is_late = len(path) >= limit or time.monotonic() > deadline_s
            if token_id is None or is_late or num_same > _MAX_SAME:
                return None
            if not matcher.consume_token(token_id):
                return None
            path.append(token_id)
        return path

    def _by_a_word(self, matcher: Any, limit: int, deadline_s: float) -> list[int] | None:
        """Take one word of the grammar, then what closes best."""
        begun = self._finish_character(matcher)
        found: list[int] | None = None
        for word in self._words:
            longest = (limit if found is None else len(found) - 1) - len(begun)
            if len(word) > longest or matcher.validate_tokens(word) < len(word):
                continue
            led = matcher.deep_copy()
            led.consume_tokens(word)
            rest = self._at_once(led) if longest > len(word) else None
            if rest is None:
                rest = self._by_preference(led, longest - len(word), deadline_s)
            found = found if rest is None else [*begun, *word, *rest]
        return found

    def _finish_character(self, matcher: Any) -> list[int]:
        """Lead a matcher to where a word can follow, if it stands in the middle of a character."""
        path: list[int] = []
        for _ in range(_MAX_CHARACTER_TOKENS):
            if any(matcher.validate_tokens(word) == len(word) for word in self._words):
                break
            token_id = self._best(matcher, self._costs.in_turn)
            if token_id is None or not matcher.consume_token(token_id):
                break
            path.append(token_id)
        return path

    def _at_once(self, matcher: Any) -> list[int] | None:
        """Return a single token after which it accepts, if one of a few kinds does."""
        for token_id in self._costs.kinds:
            if not matcher.validate_tokens([token_id]):
                continue
            led = matcher.deep_copy()
            if led.consume_token(token_id) and led.is_accepting():
                return [token_id]
        return None

    def _in_turn(self, matcher: Any, limit: int, deadline_s: float) -> list[int] | None:
        """Take what closes best and was taken least since the last quotation mark.

        So a string with a pattern gets through the characters until one of them lets it end.
        """
        path: list[int] = []
        costs = self._costs.in_turn.copy()
        while not matcher.is_accepting():
            token_id = self._best(matcher, costs)
            is_late = len(path) >= limit or time.monotonic() > deadline_s
            if token_id is None or is_late or not matcher.consume_token(token_id):
                return None
            path.append(token_id)
            if b'"' in self._costs.table.tokens[token_id]:
                costs = self._costs.in_turn.copy()
            else:
                costs[token_id] += _USED
        return path

    def _with_words(self, matcher: Any, limit: int, deadline_s: float) -> list[int] | None:
        """Take the token that was taken least; words at their first chance."""
        path: list[int] = []
        costs = self._costs.in_turn.copy()
        words = list(self._words)
        while not matcher.is_accepting():
            fitting = (word for word in words if matcher.validate_tokens(word) == len(word))
            word = next(fitting, None)
            if word is not None:
                words.remove(word)
            else:
                token_id = self._best(matcher, costs)
                if token_id is None:
                    return None
                costs[token_id] += _USED
                word = [token_id]
            is_late = len(path) + len(word) > limit or time.monotonic() > deadline_s
            if is_late or not matcher.consume_tokens(word):
                return None
            path += word
        return path

    def _best(self, matcher: Any, costs: NDArray[np.int64]) -> int | None:
        ids = allowed_ids(matcher, len(costs))
        return int(ids[costs[ids].argmin()]) if len(ids) else None


def allowed_ids(matcher: Any, num_tokens: int) -> NDArray[np.int64]:
    """Return the tokens that a matcher allows next."""
    packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(packed, count=num_tokens, bitorder="little"))


def words_of(source: str) -> list[bytes]:
    """Return the texts in a grammar that may be parts of an answer, each once."""
    source = source.replace("\\/", "/")
    found: dict[bytes, None] = {}
    for quoted in _QUOTED.findall(source):
        try:
            text = json.loads(quoted, strict=False)
        except ValueError:
            continue
        found[text.encode(errors="ignore")] = None
    for run in _RUN.findall(source):
        for text in (run, run.strip("/")):  # a regular expression stands between slashes
            found[text.encode(errors="ignore")] = None
    return [word for word in found if 1 < len(word) <= _MAX_WORD_BYTES][:_MAX_WORDS]


def _cost(own: bytes) -> int:
    """Return how late a token is tried: by its family, in which long closers come first."""
    used = set(own)
    length = min(len(own), _MAX_LENGTH - 1)
    for family, members in enumerate(_FAMILIES):
        if used <= members:
            is_closing = family < 2
            return family * 2 * _MAX_LENGTH + (_MAX_LENGTH - length if is_closing else length)
    leads_nowhere = used & set(b" \t\r\n\\")
    family = _SPACE_FAMILY if leads_nowhere else _OTHER_FAMILY
    return family * 2 * _MAX_LENGTH + length
