"""GPT-2: learned positions, matrices stored transposed, tied head (Radford et al. 2019)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation, refuse
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["GPT2"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    refuse("GPT-2", {"add_cross_attention": config.add_cross_attention})
    head_dim = config.n_embd // config.n_head
    return DecoderSpec(
        family="gpt2",
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        num_layers=config.n_layer,
        max_model_len=max_model_len,
        norm=NormSpec(kind="layer", eps=config.layer_norm_epsilon, has_bias=True),
        attention=AttentionSpec(
            num_heads=config.n_head,
            num_kv_heads=config.n_head,
            head_dim=head_dim,
            scale=head_dim**-0.5 if config.scale_attn_weights else 1.0,
            divides_scale_by_layer=config.scale_attn_by_inverse_layer_idx,
            windows=(None,) * config.n_layer,
            qkv_bias=True,
            out_bias=True,
        ),
        mlp=MlpSpec(
            intermediate_size=config.n_inner or 4 * config.n_embd,
            activation=activation(config.activation_function),
            gated=False,
            bias=True,
        ),
        num_learned_positions=config.n_positions,
        tied_embeddings=config.tie_word_embeddings,
    )


GPT2 = Family(
    name="gpt2",
    architectures=("GPT2LMHeadModel",),
    model_types=("gpt2",),
    spec=_spec,
    names={
        "transformer.wte": "embed",
        "transformer.wpe": "positions",
        "transformer.h.{i}.ln_1": "layers.{i}.attn_norm",
        "transformer.h.{i}.attn.c_attn": "layers.{i}.attention.qkv:transposed",
        "transformer.h.{i}.attn.c_proj": "layers.{i}.attention.out:transposed",
        "transformer.h.{i}.ln_2": "layers.{i}.mlp_norm",
        "transformer.h.{i}.mlp.c_fc": "layers.{i}.mlp.up:transposed",
        "transformer.h.{i}.mlp.c_proj": "layers.{i}.mlp.down:transposed",
        "transformer.ln_f": "final_norm",
        "lm_head": "lm_head",
    },
    length_field="n_positions",
    prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"),  # the causal mask, in old checkpoints
)
