"""Bad words become tokens once, when a request is added."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_engine, params
from tests.engine.letters import Letters
from tests.engine.scenarios import kept_by
from toolkit.errors import InvalidParameter

# In the letters' alphabet token 0 is "A", and a space would be token -33.
SPACE = ord(" ") - ord("A")


class Spaced(Letters):
    """Letters whose prompts begin with a special token, and which know a space: token 26."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids = [26 if token_id == SPACE else token_id for token_id in super().encode(text)]
        return [27, *ids] if add_special_tokens else ids


def bad_word_ids(*words: Any) -> tuple[tuple[int, ...], ...]:
    engine = make_engine(text=Spaced())
    return engine.add([1], params(1, bad_words=list(words))).bad_word_ids


def test_a_word_is_banned_with_and_without_a_leading_space():
    assert bad_word_ids("AB") == ((0, 1), (26, 0, 1))


@pytest.mark.parametrize("word", ["AB", " AB", "   AB"])
def test_the_spaces_that_a_word_is_given_with_make_no_difference(word: str):
    assert bad_word_ids(word) == ((0, 1), (26, 0, 1))


def test_a_space_alone_is_a_word_of_its_own():
    assert bad_word_ids(" ") == ((26,),)


def test_tokens_are_taken_as_they_are_and_nothing_is_listed_twice():
    assert bad_word_ids([0, 1], "AB", (7,), [7]) == ((0, 1), (26, 0, 1), (7,))


def test_every_sample_has_them():
    engine = make_engine(text=Spaced())
    request = engine.add([1], params(1, n=3, bad_words=["A"]))
    assert [sample.bad_word_ids for sample in request.samples] == [((0,), (26, 0))] * 3


def test_without_a_tokenizer_words_are_refused_and_tokens_are_not():
    engine = make_engine()
    with pytest.raises(InvalidParameter, match="no tokenizer") as caught:
        engine.add([1], params(1, bad_words=[[3], "AB"]))
    assert caught.value.param == "bad_words"
    assert kept_by(engine) == {}
    assert engine.add([1], params(1, bad_words=[[3]])).bad_word_ids == ((3,),)


def test_a_word_of_which_the_tokenizer_makes_nothing_is_refused():
    class Deaf(Letters):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return []

    with pytest.raises(InvalidParameter, match="makes nothing") as caught:
        make_engine(text=Deaf()).add([1], params(1, bad_words=["AB"]))
    assert caught.value.param == "bad_words"
