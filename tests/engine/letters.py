"""A tokenizer for the hash model: token 0 is "A", token 1 is "B", up to 49."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.request import SamplingParams
from toolkit.text import IncrementalText, SpelledToken, StopStrings


def letter(token_id: int) -> str:
    return chr(ord("A") + token_id)


def spell(token_ids: Sequence[int]) -> str:
    return "".join(map(letter, token_ids))


class LetterSpelling:
    """Spells token by token; nothing is ever uncertain."""

    pending = ""

    def __init__(self, form: str) -> None:
        self.form = form

    def push(self, token_id: int) -> list[SpelledToken]:
        return [SpelledToken(token_id, self.form.format(letter(token_id)).encode())]

    def finish(self) -> list[SpelledToken]:
        return []


class Letters:
    """The tokenizer's side of an engine; ``form`` is what a letter's token looks like."""

    def __init__(self, eos_token_ids: Sequence[int] = (), *, form: str = "{}") -> None:
        self.eos_token_ids = frozenset(eos_token_ids)
        self.form = form

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) - ord("A") for character in text]

    def output_text(
        self, prompt_token_ids: Sequence[int], params: SamplingParams
    ) -> IncrementalText:
        return IncrementalText(
            LetterSpelling(self.form),
            StopStrings(tuple(params.stop or ())),
            include_stop=params.include_stop_str_in_output,
        )
