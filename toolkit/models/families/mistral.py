"""Mistral: Llama's layout with a sliding window (arXiv:2310.06825)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, layer_windows, one_window
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["MISTRAL"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    # attention_bias is not read: transformers' Mistral has none whatever a config says.
    windows = layer_windows(config) if hasattr(config, "layer_types") else one_window(config)
    attention = {"windows": windows, "qkv_bias": False, "out_bias": False}
    return llama_spec(config, max_model_len, family="mistral", attention=attention)


MISTRAL = Family(
    name="mistral",
    architectures=("MistralForCausalLM",),
    model_types=("mistral",),
    spec=_spec,
    names=LLAMA_NAMES,
    prefix="model.",
)
