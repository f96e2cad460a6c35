"""Stop strings: found across token edges, held back while they may begin, cut where they begin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.text import IncrementalText, SpelledToken, StopStrings


class Pieces:
    """A tokenizer whose tokens are indices into a list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    pending = ""

    def push(self, token_id: int) -> list[SpelledToken]:
        return [SpelledToken(token_id, self.texts[token_id].encode())]

    def finish(self) -> list[SpelledToken]:
        return []


def growing(pieces: Pieces, stops: Sequence[str], *, include_stop: bool = False) -> IncrementalText:
    return IncrementalText(pieces, StopStrings(stops), include_stop=include_stop)


def all_matches(text: str, stops: Sequence[str]) -> list[tuple[int, int, str]]:
    return [
        (start, start + len(stop), stop)
        for stop in stops
        for start in range(len(text) - len(stop) + 1)
        if text.startswith(stop, start)
    ]


def first_match(
    texts: Sequence[str], stops: Sequence[str], num_unchecked: int
) -> tuple[int, tuple[int, int, str]] | None:
    """The number of tokens after which a stop is complete, and where it stands."""
    for count in range(num_unchecked + 1, len(texts) + 1):
        before, text = len("".join(texts[: count - 1])), "".join(texts[:count])
        complete = [match for match in all_matches(text, stops) if match[1] > before]
        if complete:
            return count, min(complete, key=lambda match: (match[0], -match[1]))
    return None


def could_begin(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of a text that a stop string begins with."""
    return max(
        (
            length
            for stop in stops
            for length in range(1, len(stop))
            if text.endswith(stop[:length])
        ),
        default=0,
    )


TEXTS = st.lists(st.text("ab", max_size=3), max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)


@settings(max_examples=600)
@given(TEXTS, STOPS, st.booleans(), st.integers(0, 4))
def test_the_text_ends_where_the_first_stop_to_be_complete_begins(
    texts: list[str], stops: list[str], include_stop: bool, num_unchecked: int
):
    text = growing(Pieces(texts), stops, include_stop=include_stop)
    found = first_match(texts, stops, num_unchecked)
    taken = ""
    for index in range(len(texts)):
        stop = text.push(index, check_stop=index >= num_unchecked)
        taken += text.take()
        if found is not None and index + 1 == found[0]:
            start, end, expected_stop = found[1]
            assert stop == expected_stop
            assert text.text == "".join(texts)[: end if include_stop else start]
            assert taken == text.text
            return
        assert stop is None
        known = "".join(texts[: index + 1])
        assert text.text == known
        # Neither a character too many, which might have to be cut, nor one too few.
        assert taken == known[: len(known) - could_begin(known, stops)]
    assert found is None
    text.finish()
    assert taken + text.take() == text.text == "".join(texts)


@settings(max_examples=300)
@given(st.text("ab", max_size=20), STOPS, st.integers(0, 20))
def test_find_gives_the_first_match_that_is_new(text: str, stops: list[str], num_searched: int):
    num_searched = min(num_searched, len(text))
    new = [match for match in all_matches(text, stops) if match[1] > num_searched]
    found = StopStrings(stops).find(text, num_searched)
    if not new:
        assert found is None
    else:
        start, end, _ = min(new, key=lambda match: (match[0], -match[1]))
        assert found is not None
        assert (found.start, found.end) == (start, end)
        assert text[found.start : found.end] == found.stop


@settings(max_examples=300)
@given(st.text("ab", max_size=12), STOPS)
def test_what_is_held_back_is_what_could_begin_a_stop(text: str, stops: list[str]):
    assert StopStrings(stops).num_held_back(text) == could_begin(text, stops)


def test_no_stops_hold_nothing_back():
    stops = StopStrings(())
    assert not stops
    assert stops.find("abc", 0) is None
    assert stops.num_held_back("abc") == 0


@pytest.mark.parametrize("include_stop", [True, False])
def test_a_stop_in_the_middle_of_a_token_cuts_the_token(include_stop: bool):
    text = growing(Pieces(["one. two"]), ["."], include_stop=include_stop)
    assert text.push(0, check_stop=True) == "."
    assert text.text == ("one." if include_stop else "one")


def test_after_the_stop_nothing_more_is_shown():
    text = growing(Pieces(["one", ".", "two"]), ["."])
    text.push(0, check_stop=True)
    text.push(1, check_stop=True)
    assert text.take() == "one"
    text.finish()
    assert text.text == "one"
    assert text.take() == ""


def test_a_stop_that_began_before_it_counted_counts_when_it_is_complete_later():
    text = growing(Pieces(["EN", "D"]), ["END"])
    assert text.push(0, check_stop=False) is None
    assert text.push(1, check_stop=True) == "END"
    assert text.text == ""


def test_a_stop_that_was_complete_before_it_counted_does_not_count():
    text = growing(Pieces(["END", "x", "END"]), ["END"])
    assert text.push(0, check_stop=False) is None
    assert text.push(1, check_stop=True) is None
    assert text.push(2, check_stop=True) == "END"
    assert text.text == "ENDx"


def test_held_back_text_comes_when_it_turns_out_to_be_harmless():
    text = growing(Pieces(["a", "E", "N", "d"]), ["END"])
    taken = []
    for index in range(4):
        text.push(index, check_stop=True)
        taken.append(text.take())
    assert taken == ["a", "", "", "ENd"]


def test_stops_of_any_script_are_found():
    text = growing(Pieces(["日", "本", "語🙂", "!"]), ["本語", "🙂!"])
    assert text.push(0, check_stop=True) is None
    assert text.push(1, check_stop=True) is None
    assert text.take() == "日"
    assert text.push(2, check_stop=True) == "本語"
    assert text.text == "日"
