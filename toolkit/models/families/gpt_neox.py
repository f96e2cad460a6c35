"""GPT-NeoX and Pythia: partial rope, query, key and value by head, parallel layers (2204.06745)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation
from toolkit.models.rope import rope_spec
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["GPT_NEOX"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    head_dim = config.hidden_size // config.num_attention_heads
    return DecoderSpec(
        family="gpt_neox",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        max_model_len=max_model_len,
        norm=NormSpec(kind="layer", eps=config.layer_norm_eps, has_bias=True),
        layer="parallel" if config.use_parallel_residual else "serial",
        attention=AttentionSpec(
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            windows=(None,) * config.num_hidden_layers,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
        ),
        mlp=MlpSpec(
            intermediate_size=config.intermediate_size,
            activation=activation(config.hidden_act),
            gated=False,
            bias=True,
        ),
        rope=rope_spec(config, head_dim=head_dim, max_model_len=max_model_len, is_partial=True),
        tied_embeddings=config.tie_word_embeddings,
    )


GPT_NEOX = Family(
    name="gpt_neox",
    architectures=("GPTNeoXForCausalLM",),
    model_types=("gpt_neox",),
    spec=_spec,
    names={
        "gpt_neox.embed_in": "embed",
        "gpt_neox.layers.{i}.input_layernorm": "layers.{i}.attn_norm",
        "gpt_neox.layers.{i}.attention.query_key_value": "layers.{i}.attention.qkv:by group",
        "gpt_neox.layers.{i}.attention.dense": "layers.{i}.attention.out",
        "gpt_neox.layers.{i}.post_attention_layernorm": "layers.{i}.mlp_norm",
        "gpt_neox.layers.{i}.mlp.dense_h_to_4h": "layers.{i}.mlp.up",
        "gpt_neox.layers.{i}.mlp.dense_4h_to_h": "layers.{i}.mlp.down",
        "gpt_neox.final_layer_norm": "final_norm",
        "embed_out": "lm_head",
    },
    prefix="gpt_neox.",
    # The causal mask and the rope's frequencies, in old checkpoints.
    ignored=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
)
