"""OPT: learned positions from row 2 on; its 350m normalises the sums (arXiv:2205.01068)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation, refuse
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["OPT"]

_OFFSET = 2  # rows of the table before position 0
_NORM_EPS = 1e-5  # the config does not hold it


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    refuse("OPT", {"layer_norm_elementwise_affine": not config.layer_norm_elementwise_affine})
    head_dim, width = config.hidden_size // config.num_attention_heads, config.word_embed_proj_dim
    is_pre_norm = config.do_layer_norm_before
    return DecoderSpec(
        family="opt",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        max_model_len=max_model_len,
        norm=NormSpec(kind="layer", eps=_NORM_EPS, has_bias=True),
        norms="pre" if is_pre_norm else "sum",
        final_norm=is_pre_norm and not config._remove_final_layer_norm,
        attention=AttentionSpec(
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            windows=(None,) * config.num_hidden_layers,
            qkv_bias=config.enable_bias,
            out_bias=config.enable_bias,
        ),
        mlp=MlpSpec(
            intermediate_size=config.ffn_dim,
            activation=activation(config.activation_function),
            gated=False,
            bias=config.enable_bias,
        ),
        num_learned_positions=config.max_position_embeddings + _OFFSET,
        position_offset=_OFFSET,
        embedding_size=width if width != config.hidden_size else None,
        tied_embeddings=config.tie_word_embeddings,
    )


_LAYER = "model.decoder.layers.{i}"

OPT = Family(
    name="opt",
    architectures=("OPTForCausalLM",),
    model_types=("opt",),
    spec=_spec,
    names={
        "model.decoder.embed_tokens": "embed",
        "model.decoder.embed_positions": "positions",
        "model.decoder.project_in": "project_in",
        "model.decoder.project_out": "project_out",
        f"{_LAYER}.self_attn_layer_norm": "layers.{i}.attn_norm",
        f"{_LAYER}.self_attn.q_proj": "layers.{i}.attention.qkv:q",
        f"{_LAYER}.self_attn.k_proj": "layers.{i}.attention.qkv:k",
        f"{_LAYER}.self_attn.v_proj": "layers.{i}.attention.qkv:v",
        f"{_LAYER}.self_attn.out_proj": "layers.{i}.attention.out",
        f"{_LAYER}.final_layer_norm": "layers.{i}.mlp_norm",
        f"{_LAYER}.fc1": "layers.{i}.mlp.up",
        f"{_LAYER}.fc2": "layers.{i}.mlp.down",
        "model.decoder.final_layer_norm": "final_norm",
        "lm_head": "lm_head",
    },
    prefix="model.",
)
