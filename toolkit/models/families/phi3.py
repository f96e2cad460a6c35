"""Phi-3 and Phi-4: Llama's layout with fused matrices, partial and long rope (arXiv:2404.14219)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["PHI3"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    no_bias = {"qkv_bias": False, "out_bias": False}  # whatever attention_bias says
    return llama_spec(config, max_model_len, family="phi3", attention=no_bias)


PHI3 = Family(
    name="phi3",
    architectures=("Phi3ForCausalLM",),
    model_types=("phi3",),
    spec=_spec,
    names={name: ours for name, ours in LLAMA_NAMES.items() if ":" not in ours}
    | {
        "model.layers.{i}.self_attn.qkv_proj": "layers.{i}.attention.qkv",
        "model.layers.{i}.mlp.gate_up_proj": "layers.{i}.mlp.gate_up",
    },
    prefix="model.",
)
