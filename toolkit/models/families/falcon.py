"""Falcon: one key head or grouped ones, parallel layers, rope or ALiBi (arXiv:2311.16867).

transformers rounds ALiBi's biases (falcon-rw) to bfloat16, whatever the model's dtype; here they
are exact.
"""

from __future__ import annotations

from typing import Literal

from transformers import PreTrainedConfig

from toolkit.models.families.alibi import alibi_slopes
from toolkit.models.families.family import Family, activation, refuse
from toolkit.models.rope import rope_spec
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["FALCON"]


def _layer(config: PreTrainedConfig) -> Literal["serial", "parallel", "parallel, one norm"]:
    has_two_norms = config.num_ln_in_parallel_attn in (None, 2)
    if config.new_decoder_architecture:
        refuse("Falcon", {"parallel_attn=False": not config.parallel_attn})
        return "parallel" if has_two_norms else "parallel, one norm"
    refuse("Falcon", {"num_ln_in_parallel_attn": config.num_ln_in_parallel_attn == 2})
    return "parallel, one norm" if config.parallel_attn else "serial"


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    num_heads, head_dim = config.num_attention_heads, config.head_dim
    has_one_key_head = config.multi_query and not config.new_decoder_architecture
    slopes = None
    if config.alibi:  # Falcon adds them before the scores are scaled
        slopes = tuple(slope * head_dim**-0.5 for slope in alibi_slopes(num_heads))
    return DecoderSpec(
        family="falcon",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        max_model_len=max_model_len,
        norm=NormSpec(kind="layer", eps=config.layer_norm_epsilon, has_bias=True),
        layer=_layer(config),
        attention=AttentionSpec(
            num_heads=num_heads,
            num_kv_heads=1 if has_one_key_head else config.num_kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            windows=(None,) * config.num_hidden_layers,
            qkv_bias=config.bias,
            out_bias=config.bias,
            alibi_slopes=slopes,
        ),
        mlp=MlpSpec(
            intermediate_size=config.ffn_hidden_size,
            activation=activation(config.activation),
            gated=False,
            bias=config.bias,
        ),
        rope=None
        if config.alibi
        else rope_spec(config, head_dim=head_dim, max_model_len=max_model_len),
        tied_embeddings=config.tie_word_embeddings,
    )


_LAYER = "transformer.h.{i}"

FALCON = Family(
    name="falcon",
    architectures=("FalconForCausalLM",),
    model_types=("falcon",),
    spec=_spec,
    names={
        "transformer.word_embeddings": "embed",
        f"{_LAYER}.input_layernorm": "layers.{i}.attn_norm",
        f"{_LAYER}.ln_attn": "layers.{i}.attn_norm",
        f"{_LAYER}.self_attention.query_key_value": "layers.{i}.attention.qkv:by group",
        f"{_LAYER}.self_attention.dense": "layers.{i}.attention.out",
        f"{_LAYER}.post_attention_layernorm": "layers.{i}.mlp_norm",
        f"{_LAYER}.ln_mlp": "layers.{i}.mlp_norm",
        f"{_LAYER}.mlp.dense_h_to_4h": "layers.{i}.mlp.up",
        f"{_LAYER}.mlp.dense_4h_to_h": "layers.{i}.mlp.down",
        "transformer.ln_f": "final_norm",
        "lm_head": "lm_head",
    },
    prefix="transformer.",
)
