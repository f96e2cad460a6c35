"""Tiny models for the tests of hooks, and what transformers computes on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.models.checkpoints import FAMILIES, VOCAB_SIZE, write_checkpoint
from toolkit import LLM, SamplingParams
from toolkit.engine import StepReport
from toolkit.request import Request

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
NUM_LAYERS = 2
HIDDEN = 48


def checkpoint(folder: Path, family: str) -> Path:
    return write_checkpoint(folder, FAMILIES[family])


def open_llm(folder: Path, **settings: Any) -> LLM:
    """An engine that cuts prompts into chunks and whose blocks are small."""
    own = {
        "tokenizer": False,
        "kernels": "reference",
        "block_size": 4,
        "max_num_batched_tokens": 24,
        "max_model_len": 64,
    }
    llm = LLM(str(folder), **{**own, **settings})
    object.__setattr__(llm.engine.config, "check_every_step", True)
    return llm


def prompts(count: int, *, shared: int = 0, seed: int = 0) -> list[list[int]]:
    """Prompts of 2 to 40 tokens, every other one with a common beginning of ``shared``."""
    rng = Random(seed)
    beginning = [rng.randrange(VOCAB_SIZE) for _ in range(shared)]
    made = []
    for index in range(count):
        own = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(2, 40 - shared))]
        made.append(beginning + own if index % 2 else own)
    return made


class Reference:
    """transformers' own forward passes, one sequence at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.set_attn_implementation("eager")
        self.model.eval()

    def __call__(self, token_ids: Sequence[int]) -> dict[str, Tensor]:
        """Return what our points show, for each position of a sequence."""
        with torch.no_grad():
            out = self.model(
                torch.tensor([list(token_ids)]), output_hidden_states=True, output_attentions=True
            )
        states = out.hidden_states
        named = {f"layers.{i}.resid_post": states[i + 1][0] for i in range(NUM_LAYERS - 1)}
        probs = {
            f"layers.{i}.attn_probs": p[0].transpose(0, 1) for i, p in enumerate(out.attentions)
        }
        ends = {"embed": states[0][0], "final_norm": states[-1][0], "logits": out.logits[0]}
        return named | probs | ends


def computed_tokens(request: Request) -> list[int]:
    """The tokens that went through the model: all but the last one."""
    return request.token_ids[:-1]


def run(llm: LLM) -> list[StepReport]:
    """Step until all is done."""
    reports = []
    while llm.engine.scheduler.has_work:
        reports.append(llm.engine.step())
    return reports
