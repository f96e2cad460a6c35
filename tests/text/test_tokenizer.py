"""The model's tokenizer as engine and server use it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.text.slow_tokenizers import Utf8Tokenizer
from tests.text.tokenizer_kinds import bert
from tests.text.tokenizers_for_tests import backend, byte_fallback, byte_level
from toolkit.errors import CheckpointError, InvalidRequest
from toolkit.sampling_params import SamplingParams
from toolkit.text import IncrementalText, Tokenizer

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

    def encode(self, text: str, add_special_tokens: bool = True, verbose: bool = True) -> list[int]:
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


def bytewise(data: bytes) -> list[int]:
    """Llama's tokens for single bytes."""
    return [byte_fallback().token_to_id(f"<0x{byte:02X}>") for byte in data]


def llama_text(stop: str) -> IncrementalText:
    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=byte_fallback()))
    return tokenizer.output_text([], SamplingParams(stop=stop))


def test_a_line_break_that_is_one_byte_stops_at_its_own_token():
    """Though it is shown only later: bytes that follow may yet make it invalid."""
    text = llama_text("\n")
    stops = [text.push(token_id, check_stop=True) for token_id in bytewise(b"ab\n")]
    assert stops == [None, None, "\n"]
    assert text.text == "ab"


def test_a_row_of_bytes_is_shown_when_it_ends():
    text, taken = llama_text("never"), []
    for token_id in [*bytewise("é\n".encode()), byte_fallback().token_to_id("▁cat")]:
        text.push(token_id, check_stop=True)
        taken.append(text.take())
    assert taken == ["", "", "", "é\n cat"]


def test_a_stop_in_a_row_of_bytes_that_was_complete_before_it_counted_does_not_count():
    text = llama_text("\n")
    first, *others = bytewise(b"\na\n")
    assert text.push(first, check_stop=False) is None
    assert [text.push(token_id, check_stop=True) for token_id in others] == [None, "\n"]
    assert text.text == "\na"


def test_a_row_of_bytes_that_turns_out_invalid_is_searched_anew():
    """Its characters become U+FFFD one and all, and the first of these is the match."""
    text = llama_text("\N{REPLACEMENT CHARACTER}")
    stops = [text.push(token_id, check_stop=True) for token_id in bytewise(b"ab\xff")]
    assert stops == [None, None, "\N{REPLACEMENT CHARACTER}"]
    assert text.text == ""


@pytest.mark.parametrize("made", [bert, Utf8Tokenizer])
def test_spaces_before_punctuation_are_not_cleaned_up(made):
    """Transformers would do it after the fact; a stream could not take the space back."""
    own = made()
    own.clean_up_tokenization_spaces = True
    tokenizer = Tokenizer(own)
    ids = tokenizer.encode("The cat 's .")
    assert own.decode(ids) != (decoded := tokenizer.decode(ids))
    assert decoded == own.decode(ids, clean_up_tokenization_spaces=False)


def test_a_padded_vocabulary_has_tokens_without_bytes():
    tokenizer = Tokenizer(backend())
    assert tokenizer.token_bytes(len(tokenizer) + 5) == b""


def test_special_tokens_of_calls_can_be_shown_where_the_others_are_hidden():
    tokenizer = Tokenizer(backend(chat_template="{% if 0 %}[TOOL_CALLS]{% endif %}"))
    tokenizer.backend.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]", "<|x|>"]})
    tokenizer = Tokenizer(tokenizer.backend)
    ids = tokenizer.turn_token_ids
    assert list(ids) == ["[TOOL_CALLS]"]
    params = SamplingParams(shown_special_token_ids=list(ids.values()))
    text = tokenizer.output_text([], params)
    for token_id in tokenizer.encode("<|x|>[TOOL_CALLS]cat<eos>"):
        text.push(token_id, check_stop=True)
    text.finish()
    assert text.text == "[TOOL_CALLS]cat"
