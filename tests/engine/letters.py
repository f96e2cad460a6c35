"""A tokenizer for the hash model: token 0 is "A", token 1 is "B", up to 49."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.request import SamplingParams
from toolkit.text import IncrementalText, StopStrings


def letter(token_id: int) -> str:
    return chr(ord("A") + token_id)


def spell(token_ids: Sequence[int]) -> str:
    return "".join(map(letter, token_ids))


class LetterPieces:
    """Decodes token by token; nothing is ever uncertain."""

    def step(self, token_id: int) -> str:
        return letter(token_id)


class Letters:
    """The tokenizer's side of an engine."""

    def __init__(self, eos_token_ids: Sequence[int] = ()) -> None:
        self.eos_token_ids = frozenset(eos_token_ids)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) - ord("A") for character in text]

    def output_text(
        self, prompt_token_ids: Sequence[int], params: SamplingParams
    ) -> IncrementalText:
        return IncrementalText(
            LetterPieces(),
            spell,
            StopStrings(tuple(params.stop or ())),
            include_stop=params.include_stop_str_in_output,
        )
