"""Whole models on the Triton ops give the tokens that they give on the reference's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.checkpoints import CONFIGS, VOCAB_SIZE, write_checkpoint
from toolkit import LLM, SamplingParams

# LayerNorms with biases; norms of own heads and interleaved rotation; norms of heads and experts.
NAMES = ("gpt2", "cohere", "qwen3_moe")
PARAMS = [
    SamplingParams(temperature=0, max_tokens=2, ignore_eos=True),
    SamplingParams(temperature=1, max_tokens=2, ignore_eos=True, seed=1),
    SamplingParams(temperature=0.8, top_k=20, top_p=0.9, max_tokens=1, ignore_eos=True, seed=2),
]


def tokens(
    folder: Path, kernels: str, device: torch.device, *, batch_invariant: bool = False
) -> list[list[int]]:
    """Generate from prompts of several lengths; the longest in two chunks."""
    prompts = [[(7 * i + n) % VOCAB_SIZE for i in range(n)] for n in (3, 33, 7)]
    sizes = {"block_size": 4, "max_model_len": 64, "max_num_batched_tokens": 32}
    settings = {"dtype": "float32", "tokenizer": False, "device": str(device), **sizes}
    with LLM(str(folder), kernels=kernels, batch_invariant=batch_invariant, **settings) as llm:
        outputs = llm.generate(prompts, PARAMS, progress=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_the_references(name: str, tmp_path: Path, device: torch.device):
    folder = write_checkpoint(tmp_path, CONFIGS[name])
    assert tokens(folder, "triton", device) == tokens(folder, "reference", device)


@pytest.mark.slow
def test_tokens_of_the_batch_invariant_mode_are_the_references(
    tmp_path: Path, device: torch.device
):
    folder = write_checkpoint(tmp_path, CONFIGS["qwen3_moe"])
    invariant = tokens(folder, "triton", device, batch_invariant=True)
    assert invariant == tokens(folder, "reference", device)
