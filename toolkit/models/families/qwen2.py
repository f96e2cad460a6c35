"""Qwen2 and 2.5 (dense): Llama's layout with biases on query, key and value (arXiv:2407.10671)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, layer_windows
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["QWEN2"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    attention = {"windows": layer_windows(config), "qkv_bias": True, "out_bias": False}
    return llama_spec(config, max_model_len, family="qwen2", attention=attention)


QWEN2 = Family(
    name="qwen2",
    architectures=("Qwen2ForCausalLM",),
    model_types=("qwen2",),
    spec=_spec,
    names=LLAMA_NAMES,
    prefix="model.",
)
