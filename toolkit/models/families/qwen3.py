"""Qwen3 (dense): Llama's layout with norms over each head of query and key, before rotary."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation
from toolkit.models.families.llama import LLAMA_NAMES
from toolkit.models.rope import rope_spec
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["QWEN3"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    norm = NormSpec(kind="rms", eps=config.rms_norm_eps)
    return DecoderSpec(
        family="qwen3",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        max_model_len=max_model_len,
        norm=norm,
        attention=AttentionSpec(
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            scale=config.head_dim**-0.5,
            windows=tuple(
                config.sliding_window if kind == "sliding_attention" else None
                for kind in config.layer_types
            ),
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            qk_norm=norm,
        ),
        mlp=MlpSpec(
            intermediate_size=config.intermediate_size,
            activation=activation(config.hidden_act),
            gated=True,
        ),
        rope=rope_spec(config, rotary_dim=config.head_dim, max_model_len=max_model_len),
        tied_embeddings=config.tie_word_embeddings,
    )


QWEN3 = Family(
    name="qwen3",
    architectures=("Qwen3ForCausalLM",),
    model_types=("qwen3",),
    spec=_spec,
    names=LLAMA_NAMES
    | {
        "model.layers.{i}.self_attn.q_norm": "layers.{i}.attention.q_norm",
        "model.layers.{i}.self_attn.k_norm": "layers.{i}.attention.k_norm",
    },
)
