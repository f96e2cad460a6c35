"""ShareGPT's JSON: a list of conversations, of which the first question and answer are taken.

The file may not be passed on; where it is at hand, this is what vLLM's benchmarks do with it: the
first two turns, prompt and answer of at least 4 tokens, the prompt at most 1,024 and both at most
2,048. The prompts are the real ones; no times are in the file, so all come at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.errors import InvalidConfig
from toolkit.experiments.traces.trace import Collected, Place, Trace, json_value, opened
from toolkit.experiments.workloads.columns import Ragged
from toolkit.experiments.workloads.given import GivenTokens, encoder

__all__ = ["read_sharegpt"]

_SHORTEST, _LONGEST_PROMPT, _LONGEST = 4, 1024, 2048


def read_sharegpt(path: Path, num_requests: int | None, tokenizer: Any) -> Trace:
    """Read conversations and count their tokens.

    Raises:
        InvalidConfig: there is no tokenizer: a guess from words would be a tenth off or more.
    """
    if tokenizer is None:
        raise InvalidConfig(
            "a ShareGPT file holds text: give tokenizer= to count its tokens, such as llm.tokenizer"
        )
    encode = encoder(tokenizer)
    collected = Collected(path, num_requests)
    num_left_out = 0
    for number, entry in enumerate(_entries(path)):
        question, answer = _first_turns(path, number, entry)
        if question is None or answer is None:
            num_left_out += 1
            continue
        prompt, num_output = encode(question), len(encode(answer))
        if (
            min(len(prompt), num_output) < _SHORTEST
            or len(prompt) > _LONGEST_PROMPT
            or len(prompt) + num_output > _LONGEST
        ):
            num_left_out += 1
            continue
        collected.add(0.0, len(prompt), num_output)
        collected.extra.append(prompt)
        if collected.is_full:
            break
    notes = [f"{num_left_out} conversations too short or too long left out"] if num_left_out else []
    return collected.trace(GivenTokens(Ragged.of(collected.extra)), notes)


def _entries(path: Path) -> list[Any]:
    with opened(path) as file:
        try:
            entries = json_value(file.read())
        except json.JSONDecodeError as error:
            place = Place(path, error.lineno)
            raise place.error("a JSON list of conversations", error.msg) from error
    if not isinstance(entries, list):
        raise Place(path, 1).error("a JSON list of conversations", type(entries).__name__)
    return entries


def _first_turns(path: Path, number: int, entry: Any) -> tuple[str | None, str | None]:
    """Return the texts of the first two turns; None where there are not as many."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns[:2]
    ):
        raise InvalidConfig(
            f'{path}, entry {number}: expected {{"conversations": [{{"from": ..., "value": text}}, '
            f"...]}}, found {str(entry)[:80]!r}"
        )
    texts = [turn["value"] for turn in turns[:2]]
    return (texts[0], texts[1]) if len(texts) == 2 else (None, None)
