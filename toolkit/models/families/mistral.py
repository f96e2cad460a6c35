"""Mistral: Llama's layout with a sliding window (arXiv:2310.06825)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["MISTRAL"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return llama_spec(config, max_model_len, family="mistral")


MISTRAL = Family(
    name="mistral",
    architectures=("MistralForCausalLM",),
    model_types=("mistral",),
    spec=_spec,
    names=LLAMA_NAMES,
    prefix="model.",
)
