"""Bloom: ALiBi, a norm over the embeddings, query, key and value by head (arXiv:2211.05100)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.alibi import alibi_slopes
from toolkit.models.families.family import Family, refuse
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["BLOOM"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    name = "apply_residual_connection_post_layernorm"
    refuse("Bloom", {name: config.apply_residual_connection_post_layernorm})
    norm = NormSpec(kind="layer", eps=config.layer_norm_epsilon, has_bias=True)
    head_dim = config.hidden_size // config.n_head
    return DecoderSpec(
        family="bloom",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.n_layer,
        max_model_len=max_model_len,
        norm=norm,
        attention=AttentionSpec(
            num_heads=config.n_head,
            num_kv_heads=config.n_head,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            windows=(None,) * config.n_layer,
            qkv_bias=True,
            out_bias=True,
            alibi_slopes=alibi_slopes(config.n_head),
        ),
        mlp=MlpSpec(
            intermediate_size=4 * config.hidden_size,
            activation="gelu_tanh",
            gated=False,
            bias=True,
        ),
        embedding_norm=norm,
        tied_embeddings=config.tie_word_embeddings,
    )


BLOOM = Family(
    name="bloom",
    architectures=("BloomForCausalLM",),
    model_types=("bloom",),
    spec=_spec,
    names={
        "transformer.word_embeddings": "embed",
        "transformer.word_embeddings_layernorm": "embed_norm",
        "transformer.h.{i}.input_layernorm": "layers.{i}.attn_norm",
        "transformer.h.{i}.self_attention.query_key_value": "layers.{i}.attention.qkv:by group",
        "transformer.h.{i}.self_attention.dense": "layers.{i}.attention.out",
        "transformer.h.{i}.post_attention_layernorm": "layers.{i}.mlp_norm",
        "transformer.h.{i}.mlp.dense_h_to_4h": "layers.{i}.mlp.up",
        "transformer.h.{i}.mlp.dense_4h_to_h": "layers.{i}.mlp.down",
        "transformer.ln_f": "final_norm",
        "lm_head": "lm_head",
    },
    length_field="seq_length",
    prefix="transformer.",
)
