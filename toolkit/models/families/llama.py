"""Llama and what shares its layout: RMSNorm, rotary positions, grouped heads, gated SiLU.

``llama_spec`` and ``LLAMA_NAMES`` are what most families begin with: each says only what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation
from toolkit.models.rope import rope_spec
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["LLAMA", "LLAMA_NAMES", "llama_spec"]


def llama_spec(
    config: PreTrainedConfig,
    max_model_len: int,
    *,
    family: str = "llama",
    norm: NormSpec | None = None,
    attention: Mapping[str, Any] | None = None,
    mlp: Mapping[str, Any] | None = None,
    **changes: Any,
) -> DecoderSpec:
    """Describe a Llama-like config; ``attention``, ``mlp`` and ``changes`` say what differs.

    Read here is what every family reads, and ``attention_bias`` where the config has it. What only
    some families' code looks at (windows, biases of the MLP, partial rotation) they pass in: a
    config may hold such a field from the model that it was made of.
    """
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    bias = getattr(config, "attention_bias", False)
    attention_fields = {
        "num_heads": num_heads,
        "num_kv_heads": config.num_key_value_heads,
        "head_dim": head_dim,
        "scale": head_dim**-0.5,
        "windows": (None,) * config.num_hidden_layers,
        "qkv_bias": bias,
        "out_bias": bias,
    }
    mlp_fields = {"intermediate_size": config.intermediate_size, "gated": True}
    if "activation" not in (mlp or {}):
        mlp_fields["activation"] = activation(config.hidden_act)
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "tied_embeddings": config.tie_word_embeddings,
    }
    if "rope" not in changes and "layer_ropes" not in changes:
        fields["rope"] = rope_spec(config, head_dim=head_dim, max_model_len=max_model_len)
    return DecoderSpec(
        family=family,
        max_model_len=max_model_len,
        norm=norm or NormSpec(kind="rms", eps=config.rms_norm_eps),
        attention=AttentionSpec(**(attention_fields | dict(attention or {}))),
        mlp=MlpSpec(**(mlp_fields | dict(mlp or {}))),
        **(fields | changes),
    )


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return llama_spec(config, max_model_len, mlp={"bias": config.mlp_bias})


LLAMA_NAMES = {
    "model.embed_tokens": "embed",
    "model.layers.{i}.input_layernorm": "layers.{i}.attn_norm",
    "model.layers.{i}.self_attn.q_proj": "layers.{i}.attention.qkv:q",
    "model.layers.{i}.self_attn.k_proj": "layers.{i}.attention.qkv:k",
    "model.layers.{i}.self_attn.v_proj": "layers.{i}.attention.qkv:v",
    "model.layers.{i}.self_attn.o_proj": "layers.{i}.attention.out",
    "model.layers.{i}.post_attention_layernorm": "layers.{i}.mlp_norm",
    "model.layers.{i}.mlp.gate_proj": "layers.{i}.mlp.gate_up:gate",
    "model.layers.{i}.mlp.up_proj": "layers.{i}.mlp.gate_up:up",
    "model.layers.{i}.mlp.down_proj": "layers.{i}.mlp.down",
    "model.norm": "final_norm",
    "lm_head": "lm_head",
}

LLAMA = Family(
    name="llama",
    architectures=("LlamaForCausalLM",),
    model_types=("llama",),
    spec=_spec,
    names=LLAMA_NAMES,
    prefix="model.",
    ignored=(".rotary_emb.inv_freq",),  # in checkpoints of 2023
)
