"""Phi-3 and Phi-4: Llama's layout with fused matrices, partial and long rope (arXiv:2404.14219)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, one_window
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.rope import rope_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["PHI3"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    # attention_bias is not read: transformers' Phi-3 has none whatever a config says.
    attention = {"windows": one_window(config), "qkv_bias": False, "out_bias": False}
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = rope_spec(config, head_dim=head_dim, max_model_len=max_model_len, is_partial=True)
    return llama_spec(config, max_model_len, family="phi3", attention=attention, rope=rope)


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
