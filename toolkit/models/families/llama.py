"""Llama and what shares its layout: RMSNorm, rotary positions, grouped heads, gated SiLU."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation
from toolkit.models.rope import rope_spec
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["LLAMA", "LLAMA_NAMES"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return DecoderSpec(
        family="llama",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        max_model_len=max_model_len,
        norm=NormSpec(kind="rms", eps=config.rms_norm_eps),
        attention=AttentionSpec(
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            scale=config.head_dim**-0.5,
            windows=(None,) * config.num_hidden_layers,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
        ),
        mlp=MlpSpec(
            intermediate_size=config.intermediate_size,
            activation=activation(config.hidden_act),
            gated=True,
            bias=config.mlp_bias,
        ),
        rope=rope_spec(config, rotary_dim=config.head_dim, max_model_len=max_model_len),
        tied_embeddings=config.tie_word_embeddings,
    )


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
    ignored=(".rotary_emb.inv_freq",),  # in checkpoints of 2023
)
