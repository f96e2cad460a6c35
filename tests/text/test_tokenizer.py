"""The model's tokenizer as engine and server use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text.tokenizers_for_tests import backend, byte_level
from toolkit.errors import CheckpointError, InvalidRequest
from toolkit.sampling_params import SamplingParams
from toolkit.text import Tokenizer

TEXT = "the naïve cat 🙂 日本"


def test_text_comes_back_from_its_tokens():
    tokenizer = Tokenizer(backend())
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_the_ends_of_a_sequence_are_the_tokenizers_and_the_models():
    own = byte_level().token_to_id("<eos>")
    assert Tokenizer(backend()).eos_token_ids == {own}
    assert Tokenizer(backend(), eos_token_ids=[90, 91]).eos_token_ids == {own, 90, 91}


def test_special_tokens_are_skipped_unless_asked_for():
    tokenizer = Tokenizer(backend())
    ids = [*tokenizer.encode("cat"), byte_level().token_to_id("<eos>")]
    assert tokenizer.decode(ids) == "cat"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "cat<eos>"


def test_a_part_of_a_character_spells_as_a_replacement():
    tokenizer = Tokenizer(backend())
    parts = tokenizer.encode("🧨")  # not in the corpus, so it is put together from bytes
    assert len(parts) > 1
    assert {"".join(tokenizer.token_text(part)) for part in parts} == {"\ufffd"}
    assert tokenizer.token_text(byte_level().token_to_id("<eos>")) == "<eos>"


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(InvalidRequest, match="Unicode"):
        Tokenizer(backend()).encode("a\ud83d")


def test_its_length_counts_special_tokens():
    assert len(Tokenizer(backend())) == byte_level().get_vocab_size()


@pytest.mark.parametrize("skip", [True, False])
def test_output_text_follows_the_parameters(skip: bool):
    tokenizer = Tokenizer(backend())
    params = SamplingParams(stop=["sat"], skip_special_tokens=skip)
    text = tokenizer.output_text([1, 2], params)
    ids = [byte_level().token_to_id("<|user|>"), *tokenizer.encode("the cat sat here")]
    stops = (text.push(token_id, check_stop=True) for token_id in ids)
    assert next(stop for stop in stops if stop is not None) == "sat"
    assert text.text == ("the cat " if skip else "<|user|>the cat ")


def test_a_conversation_is_encoded_without_further_special_tokens():
    given = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<eos>"
    tokenizer = Tokenizer(backend(), chat_template=given)
    ids = tokenizer.encode_chat([{"role": "user", "content": "cat"}])
    own = byte_level()
    assert ids == [own.token_to_id("<|user|>"), *own.encode("cat").ids, own.token_to_id("<eos>")]


def test_a_saved_tokenizer_is_loaded(tmp_path: Path):
    backend().save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(str(tmp_path))
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.eos_token_ids == Tokenizer(backend()).eos_token_ids


def test_a_folder_without_a_tokenizer_says_what_to_pass(tmp_path: Path):
    with pytest.raises(CheckpointError, match="tokenizer="):
        Tokenizer.load(str(tmp_path))


class SlowBackend:
    """A tokenizer written in Python: no backend to stream from."""

    eos_token_id = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids, skip_special_tokens: bool = True) -> str:
        return bytes(token_ids).decode(errors="replace")


def test_a_tokenizer_written_in_python_streams_too():
    tokenizer = Tokenizer(SlowBackend())
    text = tokenizer.output_text([], SamplingParams())
    pieces = []
    for token_id in tokenizer.encode(TEXT):
        text.push(token_id, check_stop=True)
        pieces.append(text.take())
    assert "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)
    assert tokenizer.eos_token_ids == frozenset()
