"""Compile attention at the shapes of known models and print a report of each kernel as JSON.

A program of its own, because it needs a Triton that is not interpreted.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any, NamedTuple

import torch

from toolkit.kernels.triton.ahead_of_time import compiled, resources
from toolkit.kernels.triton.attention import paged_attention


class Case(NamedTuple):
    """A batch's shape; the tensors have no memory."""

    num_tokens: int
    num_requests: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.bfloat16
    form: tuple[str, ...] = ()  # arguments of the scores
    batch_invariant: bool = False


CASES = {
    "Qwen3-8B, a prompt": Case(4096, 1, 32, 8, 128),
    "Qwen3-8B, single tokens": Case(64, 64, 32, 8, 128),
    "Qwen3-8B, batch invariant": Case(512, 16, 32, 8, 128, batch_invariant=True),
    "Qwen3-0.6B, single tokens and a few more": Case(40, 16, 16, 8, 128),
    "Gemma 2 9B": Case(2048, 16, 16, 8, 256, form=("softcap", "window")),
    "gpt-oss": Case(2048, 16, 64, 8, 64, form=("sinks", "window")),
    "ALiBi": Case(2048, 16, 32, 32, 80, torch.float16, form=("alibi_slopes",)),
    "float32": Case(512, 16, 16, 8, 128, torch.float32),
}
BLOCK_SIZE, MAX_BLOCKS = 16, 512


def attend(case: Case) -> None:
    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    cache = empty(1024, case.num_kv_heads, BLOCK_SIZE, case.head_dim, dtype=case.dtype)
    per_head = empty(case.num_heads, dtype=torch.float32)
    choices: dict[str, Any] = {
        "alibi_slopes": per_head,
        "sinks": per_head,
        "softcap": 50.0,
        "window": 4096,
    }
    paged_attention(
        empty(case.num_tokens, case.num_heads, case.head_dim, dtype=case.dtype),
        cache,
        cache,
        empty(case.num_requests, MAX_BLOCKS),
        empty(case.num_requests + 1),
        empty(case.num_requests),
        scale=case.head_dim**-0.5,
        batch_invariant=case.batch_invariant,
        **{name: choices[name] for name in case.form},
    )


if __name__ == "__main__":
    for name, case in CASES.items():
        for kernel in compiled(partial(attend, case)):
            json.dump({"case": name, **resources(kernel)}, sys.stdout)
            sys.stdout.write("\n")
