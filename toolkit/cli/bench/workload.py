"""What is asked in a benchmark: prompts as token ids, and how many tokens each is to give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from toolkit.errors import InvalidConfig

__all__ = ["Item", "describe", "load_workload", "random_workload"]

# The first ids of many vocabularies are special tokens.
_FIRST_TOKEN_ID = 3


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a workload."""

    prompt_token_ids: tuple[int, ...]
    output_len: int


def random_workload(
    num_prompts: int, *, input_len: int, output_len: int, vocab_size: int, seed: int
) -> list[Item]:
    """Draw prompts of ``input_len`` random tokens that share no beginning.

    >>> random_workload(1, input_len=3, output_len=2, vocab_size=100, seed=0)
    [Item(prompt_token_ids=(52, 56, 8), output_len=2)]
    """
    draw = Random(seed)
    return [
        Item(
            tuple(draw.randrange(_FIRST_TOKEN_ID, vocab_size) for _ in range(input_len)), output_len
        )
        for _ in range(num_prompts)
    ]


def load_workload(path: Path) -> list[Item]:
    """Read a JSON list of {"prompt_token_ids": [...], "output_len": n}.

    Raises InvalidConfig for anything else.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        items = [Item(tuple(e["prompt_token_ids"]), int(e["output_len"])) for e in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidConfig(
            f"{path} is no workload, a JSON list of "
            f'{{"prompt_token_ids": [...], "output_len": n}}: {error!r}'
        ) from error
    if not items:
        raise InvalidConfig(f"{path} holds no requests")
    return items


def describe(items: Sequence[Item]) -> dict[str, Any]:
    """Return what tells one workload from another, for the settings of a result."""
    text = json.dumps([asdict(item) for item in items])
    return {
        "num_prompts": len(items),
        "num_prompt_tokens": sum(len(item.prompt_token_ids) for item in items),
        "num_output_tokens": sum(item.output_len for item in items),
        "workload_sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
    }
