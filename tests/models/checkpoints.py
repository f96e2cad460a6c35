"""Tiny random checkpoints, as transformers writes them, with what transformers computes on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MptConfig, PreTrainedConfig, Qwen3Config

VOCAB_SIZE = 97
# With the default 0.02, layers this small add next to nothing to the residual and logits are flat:
# an error in attention would hide.
COMMON = {"vocab_size": VOCAB_SIZE, "initializer_range": 0.15}
LLAMA = COMMON | {
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
PROMPTS = [
    [(7 * i + 3 * i * i + 11 * request) % VOCAB_SIZE for i in range(length)]
    for request, length in enumerate((13, 1, 30, 8))
]


def llama(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**(LLAMA | changes))


def scaled_llama(rope_type: str, **parameters: Any) -> LlamaConfig:
    return llama(
        rope_parameters={"rope_type": rope_type, "rope_theta": 10000.0, **parameters},
    )


def qwen3(**changes: Any) -> Qwen3Config:
    return Qwen3Config(**(LLAMA | {"head_dim": 16} | changes))


def mpt(*, attention: dict[str, Any] | None = None, **changes: Any) -> MptConfig:
    sizes = {"d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}
    return MptConfig(**(COMMON | sizes | {"attn_config": attention or {}} | changes))


def write_checkpoint(folder: Path, config: PreTrainedConfig, **save: Any) -> Path:
    """Save a model with random weights, norms and biases included, in float32."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.15)
    model.save_pretrained(folder, **save)
    return folder


def expected_logits(folder: Path, prompts: list[list[int]]) -> list[Tensor]:
    """Compute every position's logits with transformers, one prompt at a time."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return [model(torch.tensor([prompt])).logits[0] for prompt in prompts]
