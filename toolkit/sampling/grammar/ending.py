"""Find a short way for an answer to end from where its grammar stands.

No library tells the shortest ending, so one is looked for: a copy of the matcher is led on by
tokens that tend to close things, in several orders of preference, until the grammar accepts.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.sampling.grammar.effort import Effort
from toolkit.sampling.grammar.token_costs import USED, TokenCosts

__all__ = ["SEARCH_CALLS", "EndingFinder", "words_of"]

# What is never closed is matched, too, to the end of its line: each character is read once.
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"?')
_RUN = re.compile(r"[^\\^$.|?*+()\[\]{}\"\n]{2,}")
# Of the words in a grammar, as many are tried as a tag or a tool has; a text longer is a sentence.
_MAX_WORDS = 64
_MAX_WORD_BYTES = 64
# Whoever takes a token so often in a row does not come to an end that way; a string of so many
# characters that a schema asks for does.
_MAX_SAME = 1200
# Of a search that has time, all ways together: each may try more tokens than an ending may have.
SEARCH_CALLS = 24_000
# By so many last tokens the place in another ending is told that one may go on from, and as many
# places that look the same are tried.
_MAX_TAIL = 4
_MAX_PLACES = 4
_MAX_LAST = 3
# Of a character that has begun, which no word can follow.
_MAX_CHARACTER_TOKENS = 3


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

    def find(self, matcher: Any, *, limit: int, effort: Effort | None = None) -> list[int] | None:
        """Return tokens after which the grammar accepts, or None if none were found.

        Args:
            matcher: Where the grammar stands; it is left there.
            limit: How many tokens there may be at most.
            effort: What the search may cost, shared by its ways in equal parts; where it was too
                little for all of them, ``is_spent`` says so: None then says nothing.
        """
        effort = Effort(SEARCH_CALLS) if effort is None else effort
        all_gave_up = True
        for place, way in enumerate(self._ways):
            part = effort.part(max(1, effort.left // (len(self._ways) - place)))
            path = way(matcher.deep_copy(), limit, part)
            effort.give_back(part)
            if path is not None:
                self._ways.insert(0, self._ways.pop(place))
                return path
            all_gave_up = all_gave_up and part.is_spent
        effort.is_spent = all_gave_up
        return None

    def find_near(
        self, matcher: Any, known: Sequence[list[int]], *, limit: int, effort: Effort
    ) -> list[int] | None:
        """Do the same where endings are known from other places of the same answer.

        An ending from here most often runs into one of them after few tokens: after the end of a
        string, what an object still needs is what it needed before. To see that costs one call,
        however long the rest is.

        Args:
            matcher: Where the grammar stands; it is left there.
            known: The endings, the likeliest first.
            limit: How many tokens there may be at most.
            effort: What the search may cost.
        """
        led = matcher.deep_copy()
        path: list[int] = []
        step: list[int] = []
        while not led.is_accepting():
            # What was forced, as a property's name, tells the place best: before it, the same
            # characters may be cut into other tokens.
            tail = step if len(step) > 1 else path[-_MAX_TAIL:]
            is_early = len(path) <= _MAX_CHARACTER_TOKENS
            places = partial(_places, tail, is_early=is_early)
            rest = self._joined(led, places, known, limit - len(path), effort)
            if rest is not None:
                return path + rest
            forced = led.compute_ff_tokens() if effort.spend() else []
            best = None if forced else self._closing(led, effort)
            step = forced if best is None else [best]
            if not step or len(path) + len(step) > limit or not led.consume_tokens(step):
                return None
            path += step
        return path

    def best_of(self, mask: NDArray[np.uint32]) -> int | None:
        """Return the token of a mask that closes best; None where it allows none."""
        return self._costs.closing(mask.view(np.uint8))

    def _joined(
        self,
        matcher: Any,
        places: Callable[[list[int]], Iterator[int]],
        known: Sequence[list[int]],
        limit: int,
        effort: Effort,
    ) -> list[int] | None:
        """Return the end of a known ending that is one from here, too, if it begins at a place."""
        for ending in known:
            for start in places(ending):
                rest = ending[start:]
                if not rest or len(rest) > limit:
                    continue
                if not self._fits(matcher, rest, effort):
                    continue
                led = matcher.deep_copy()
                if led.consume_tokens(rest) and led.is_accepting():
                    return rest
        return None

    def _by_preference(self, matcher: Any, limit: int, effort: Effort) -> list[int] | None:
        """Always take what closes best."""
        path: list[int] = []
        num_same = 0
        while not matcher.is_accepting():
            if len(path) >= limit or num_same > _MAX_SAME:
                return None
            token_id = self._closing(matcher, effort)
            if token_id is None or not matcher.consume_token(token_id):
                return None
            num_same = num_same + 1 if path and path[-1] == token_id else 0
            path.append(token_id)
        return path

    def _by_a_word(self, matcher: Any, limit: int, effort: Effort) -> list[int] | None:
        """Take one word of the grammar, then what closes best."""
        begun = self._finish_character(matcher, effort)
        found: list[int] | None = None
        for word in self._words:
            longest = (limit if found is None else len(found) - 1) - len(begun)
            if len(word) > longest or not self._fits(matcher, word, effort):
                continue
            led = matcher.deep_copy()
            led.consume_tokens(word)
            rest = self._at_once(led, effort) if longest > len(word) else None
            if rest is None:
                rest = self._by_preference(led, longest - len(word), effort)
            found = found if rest is None else [*begun, *word, *rest]
        return found

    def _finish_character(self, matcher: Any, effort: Effort) -> list[int]:
        """Lead a matcher to where a word can follow, if it stands in the middle of a character."""
        path: list[int] = []
        for _ in range(_MAX_CHARACTER_TOKENS):
            if any(self._fits(matcher, word, effort) for word in self._words):
                break
            token_id = self._best(matcher, self._costs.in_turn, effort)
            if token_id is None or not matcher.consume_token(token_id):
                break
            path.append(token_id)
        return path

    def _at_once(self, matcher: Any, effort: Effort) -> list[int] | None:
        """Return a single token after which it accepts, if one of a few kinds does."""
        for token_id in self._costs.kinds:
            if not self._fits(matcher, [token_id], effort):
                continue
            led = matcher.deep_copy()
            if led.consume_token(token_id) and led.is_accepting():
                return [token_id]
        return None

    def _in_turn(self, matcher: Any, limit: int, effort: Effort) -> list[int] | None:
        """Take what closes best and was taken least since the last quotation mark.

        So a string with a pattern gets through the characters until one of them lets it end.
        """
        path: list[int] = []
        costs = self._costs.in_turn.copy()
        while not matcher.is_accepting():
            if len(path) >= limit:
                return None
            token_id = self._best(matcher, costs, effort)
            if token_id is None or not matcher.consume_token(token_id):
                return None
            path.append(token_id)
            if b'"' in self._costs.table.tokens[token_id]:
                costs = self._costs.in_turn.copy()
            else:
                costs[token_id] += USED
        return path

    def _with_words(self, matcher: Any, limit: int, effort: Effort) -> list[int] | None:
        """Take the token that was taken least; words at their first chance."""
        path: list[int] = []
        costs = self._costs.in_turn.copy()
        words = list(self._words)
        while not matcher.is_accepting():
            word = next((word for word in words if self._fits(matcher, word, effort)), None)
            if word is not None:
                words.remove(word)
            else:
                token_id = self._best(matcher, costs, effort)
                if token_id is None:
                    return None
                costs[token_id] += USED
                word = [token_id]
            if len(path) + len(word) > limit or not matcher.consume_tokens(word):
                return None
            path += word
        return path

    def _fits(self, matcher: Any, word: list[int], effort: Effort) -> bool:
        return effort.spend() and bool(matcher.validate_tokens(word) == len(word))

    def _closing(self, matcher: Any, effort: Effort) -> int | None:
        """Return the allowed token that closes best; None if there is none, or no effort left."""
        if not effort.spend():
            return None
        return self._costs.closing(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8))

    def _best(self, matcher: Any, costs: NDArray[np.int64], effort: Effort) -> int | None:
        """Return the allowed token of the least cost; None if there is none, or no effort left."""
        if not effort.spend():
            return None
        return self._costs.best(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), costs)


def _places(tail: list[int], ending: list[int], *, is_early: bool) -> Iterator[int]:
    """Yield where an ending may be joined behind a tail.

    All of it, or its last tokens, may follow as soon as a character is complete: ``is_early``.
    """
    if is_early:
        yield 0
        yield from range(max(1, len(ending) - _MAX_LAST), len(ending))
    if tail:
        yield from islice(_places_behind(tail, ending), _MAX_PLACES)


def _places_behind(tail: list[int], ending: list[int]) -> Iterator[int]:
    """Yield where in an ending these tokens have just been taken."""
    sought, whole = array("q", tail).tobytes(), array("q", ending).tobytes()
    size = array("q").itemsize
    found = whole.find(sought)
    while found >= 0:
        if found % size == 0:
            yield found // size + len(tail)
        found = whole.find(sought, found + 1)


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
