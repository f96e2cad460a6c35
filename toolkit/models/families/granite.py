"""Granite 3 (dense): Llama's layout with four multipliers (IBM, 2024)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["GRANITE"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return llama_spec(
        config,
        max_model_len,
        family="granite",
        attention={"scale": config.attention_multiplier},
        mlp={"bias": config.mlp_bias},
        embedding_scale=config.embedding_multiplier,
        residual_scale=config.residual_multiplier,
        logit_scale=1.0 / config.logits_scaling,
    )


GRANITE = Family(
    name="granite",
    architectures=("GraniteForCausalLM",),
    model_types=("granite",),
    spec=_spec,
    names=LLAMA_NAMES,
    prefix="model.",
)
