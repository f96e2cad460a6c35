"""Models that say what the client asks them to say: a processor leaves them no other token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.server.tiny_model import write_tiny_model
from toolkit.llm import LLM
from toolkit.server import Server, serve


class Say:
    """Bans all tokens but the next of ``metadata["say"]``, and of the end behind it."""

    def __init__(self, llm: LLM) -> None:
        self._tokenizer = llm.tokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> Say:
        return self  # it keeps nothing

    def __call__(self, logits: torch.Tensor, at: Any) -> torch.Tensor:
        token_ids = self._tokenizer.encode(at.tags["say"], add_special_tokens=False)
        token_ids.append(min(self._tokenizer.eos_token_ids))
        banned = torch.full_like(logits, float("-inf"))
        token_id = token_ids[len(at.output_token_ids)]
        banned[token_id] = 0.0
        return banned


@contextmanager
def scripted_server(
    folder: Path, template: str, further_specials: tuple[str, ...] = ()
) -> Iterator[Server]:
    """Serve a tiny model with a template; ``say(text)`` makes a call's further fields."""
    write_tiny_model(
        folder,
        chat_template=template,
        further_specials=further_specials,
        max_model_len=2048,  # these tokenizers spell declarations of tools letter by letter
    )
    with (
        LLM(str(folder), max_num_seqs=4, num_kv_blocks=512) as llm,
        serve(llm, port=0, served_model_name="tiny", processors={"say": Say(llm)}) as server,
    ):
        yield server


def say(text: str) -> dict[str, Any]:
    """What a call to a scripted server sends beside its messages."""
    return {"metadata": {"say": text}, "extra_body": {"processors": ["say"]}}
