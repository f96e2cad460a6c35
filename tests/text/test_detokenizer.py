"""Tokens become text piece by piece: the same text as all at once, and never half a character."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache, partial

import pytest
from tokenizers import Tokenizer as RustTokenizer
from transformers import PreTrainedTokenizerFast

from tests.text.tokenizers_for_tests import (
    CORPUS,
    SPECIALS,
    byte_fallback,
    byte_level,
    spelled_in_bytes,
)
from toolkit.text import IncrementalText, StopStrings, Tokenizer
from toolkit.text.spelling import VocabularySpelling, WindowSpelling

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@cache
def around(tokenizer: RustTokenizer) -> Tokenizer:
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def growing(
    tokenizer: RustTokenizer, *, skip: bool = True, window: bool = False
) -> IncrementalText:
    whole = around(tokenizer)
    spelling = (
        WindowSpelling(partial(whole.decode, skip_special_tokens=skip))
        if window
        else whole.spelling(skip_special_tokens=skip)
    )
    assert isinstance(spelling, WindowSpelling if window else VocabularySpelling)
    return IncrementalText(spelling, StopStrings(()), include_stop=False)


def feed(text: IncrementalText, token_ids: Sequence[int]) -> list[str]:
    """Push all tokens and finish; return what was taken after each, and at the end."""
    taken = []
    for token_id in token_ids:
        assert text.push(token_id, check_stop=True) is None
        taken.append(text.take())
    text.finish()
    taken.append(text.take())
    return taken


def random_texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    characters = "".join(CORPUS)
    return ["".join(rng.choices(characters, k=rng.randint(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_random_tokens_give_the_text_of_the_whole(seed: int, skip: bool):
    """Invalid UTF-8 and special tokens included."""
    tokenizer = byte_level()
    rng = random.Random(seed)
    for _ in range(500):
        token_ids = rng.choices(range(tokenizer.get_vocab_size()), k=rng.randint(0, 25))
        text = growing(tokenizer, skip=skip)
        taken = feed(text, token_ids)
        whole = tokenizer.decode(token_ids, skip_special_tokens=skip)
        assert text.text == whole
        assert "".join(taken) == whole


@pytest.mark.parametrize("window", [True, False])
def test_valid_text_comes_in_whole_characters(window: bool):
    tokenizer = byte_level()
    for text in random_texts(1, 400):
        pieces = feed(growing(tokenizer, window=window), tokenizer.encode(text).ids)
        assert "".join(pieces) == text
        assert not any(REPLACEMENT in piece for piece in pieces)


@pytest.mark.parametrize("window", [True, False])
def test_text_spelled_byte_by_byte_comes_in_whole_characters(window: bool):
    tokenizer = byte_level()
    token_of = {byte: tokenizer.token_to_id(piece) for byte, piece in byte_pieces()}
    for text in random_texts(2, 200):
        token_ids = [token_of[byte] for byte in text.encode()]
        pieces = feed(growing(tokenizer, window=window), token_ids)
        assert "".join(pieces) == text
        assert pieces[: len(token_ids)] == expected_bytewise(text)


def byte_pieces() -> list[tuple[int, str]]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    pieces = [(byte, chr(byte)) for byte in printable]
    return pieces + [(byte, chr(256 + index)) for index, byte in enumerate(others)]


def expected_bytewise(text: str) -> list[str]:
    """Each character comes with its last byte."""
    return [
        piece for character in text for piece in [""] * (len(character.encode()) - 1) + [character]
    ]


def test_the_window_gives_the_pieces_of_the_stream():
    tokenizer = byte_level()
    for text in random_texts(3, 300):
        token_ids = tokenizer.encode(text).ids
        assert feed(growing(tokenizer, window=True), token_ids) == feed(
            growing(tokenizer), token_ids
        )


@pytest.mark.parametrize("window", [True, False])
def test_valid_text_with_byte_fallback_comes_whole(window: bool):
    tokenizer = byte_fallback()
    rng = random.Random(4)
    for text in random_texts(5, 300):
        token_ids = spelled_in_bytes(rng, text)
        taken = feed(growing(tokenizer, window=window), token_ids)
        assert "".join(taken) == tokenizer.decode(token_ids)
        assert REPLACEMENT not in "".join(taken)


@pytest.mark.parametrize("window", [True, False])
def test_no_token_breaks_a_text_with_byte_fallback(window: bool):
    """A hot model writes bytes that are no UTF-8: that is ugly, but it is no error."""
    tokenizer = byte_fallback()
    rng = random.Random(6)
    for _ in range(1_000):
        token_ids = rng.choices(range(tokenizer.get_vocab_size()), k=rng.randint(1, 20))
        text = growing(tokenizer, window=window)
        taken = feed(text, token_ids)
        assert "".join(taken) == text.text
        valid = [token_id for token_id in token_ids if token_id >= 259]
        # A window cannot know that the library takes back a row of bytes that turns invalid.
        if not window or valid == token_ids:
            assert text.text == tokenizer.decode(token_ids)


def test_text_that_was_taken_is_never_taken_back():
    """Whatever comes later, the taken pieces stay the beginning of the text."""
    tokenizer = byte_fallback()
    rng = random.Random(7)
    for _ in range(300):
        text, taken = growing(tokenizer), ""
        for token_id in rng.choices(range(tokenizer.get_vocab_size()), k=15):
            text.push(token_id, check_stop=False)
            taken += text.take()
            assert text.text.startswith(taken)
        text.finish()
        assert text.text.startswith(taken)


@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_special_tokens_are_skipped_or_kept(skip: bool, window: bool):
    tokenizer = byte_level()
    special = [tokenizer.token_to_id(name) for name in SPECIALS]
    token_ids = [special[2], *tokenizer.encode("the cat").ids, special[0], special[1]]
    text = growing(tokenizer, skip=skip, window=window)
    feed(text, token_ids)
    assert text.text == ("the cat" if skip else "<|user|>the cat<eos><pad>")


@pytest.mark.parametrize("window", [True, False])
def test_a_character_cut_off_by_the_end_shows_as_a_replacement(window: bool):
    tokenizer = byte_level()
    token_of = {byte: tokenizer.token_to_id(piece) for byte, piece in byte_pieces()}
    token_ids = [token_of[byte] for byte in b"ok" + "🙂".encode()[:3]]
    text = growing(tokenizer, window=window)
    taken = feed(text, token_ids)
    assert taken[:-1] == ["o", "k", "", "", ""]
    assert taken[-1].strip(REPLACEMENT) == ""
    assert text.text == tokenizer.decode(token_ids)


def test_a_replacement_character_that_the_model_wrote_is_shown():
    tokenizer = byte_level()
    text = f"a{REPLACEMENT}b{REPLACEMENT}"
    assert "".join(feed(growing(tokenizer), tokenizer.encode(text).ids)) == text


@pytest.mark.parametrize("window", [True, False])
def test_a_token_beyond_the_tokenizer_is_no_text(window: bool):
    """Models pad their vocabulary; a sampled id may have no token."""
    tokenizer = byte_level()
    ids = tokenizer.encode("the cat").ids
    beyond = tokenizer.get_vocab_size() + 7
    text = growing(tokenizer, window=window)
    feed(text, [*ids[:2], beyond, *ids[2:], beyond])
    assert text.text == "the cat"


def test_no_tokens_are_no_text():
    text = growing(byte_level())
    assert feed(text, []) == [""]
    assert text.text == ""


def test_finishing_twice_changes_nothing():
    text = growing(byte_level())
    feed(text, byte_level().encode("the cat").ids)
    text.finish()
    assert text.take() == ""
    assert text.text == "the cat"


def test_many_invalid_bytes_in_a_row_cost_no_more_each():
    """Bytes that never become a character must not make every further token slower."""
    tokenizer = byte_level()
    lone = dict(byte_pieces())[0x80]
    token_id = tokenizer.token_to_id(lone)
    decoded_lengths: list[int] = []

    def decode(token_ids: Sequence[int]) -> str:
        decoded_lengths.append(len(token_ids))
        return tokenizer.decode(list(token_ids))

    spelling = WindowSpelling(decode)
    for _ in range(500):
        spelling.push(token_id)
    assert max(decoded_lengths) < 100
