"""MPT (mosaicml/mpt-7b and -30b): ALiBi, LayerNorm without bias, fused Wqkv, plain GELU.

transformers takes 8 for alibi_bias_max whatever the config says; MosaicML's own code takes the
config's, as we do (they differ for mpt-7b-storywriter).
"""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.alibi import alibi_slopes
from toolkit.models.families.family import Family, refuse
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, NormSpec

__all__ = ["MPT"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    attention, head_dim = config.attn_config, config.d_model // config.n_heads
    refuse(
        "MPT",
        {
            "attn_type": attention.attn_type != "multihead_attention",
            "alibi": not attention.alibi,
            "prefix_lm": attention.prefix_lm,
            "qk_ln": attention.qk_ln,
            "no_bias": not config.no_bias,
        },
    )
    by_name = {None: 1.0, "inv_sqrt_d_model": config.d_model**-0.5}
    logit_scale = by_name.get(config.logit_scale, config.logit_scale)
    return DecoderSpec(
        family="mpt",
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        num_layers=config.n_layers,
        max_model_len=max_model_len,
        norm=NormSpec(kind="layer", eps=config.layer_norm_epsilon),
        attention=AttentionSpec(
            num_heads=config.n_heads,
            num_kv_heads=config.n_heads,
            head_dim=head_dim,
            scale=attention.softmax_scale or head_dim**-0.5,
            windows=(None,) * config.n_layers,
            clip_qkv=attention.clip_qkv or None,
            alibi_slopes=alibi_slopes(config.n_heads, attention.alibi_bias_max),
        ),
        mlp=MlpSpec(
            intermediate_size=config.expansion_ratio * config.d_model,
            activation="gelu",
            gated=False,
        ),
        tied_embeddings=True,
        logit_scale=logit_scale,
    )


MPT = Family(
    name="mpt",
    architectures=("MptForCausalLM", "MPTForCausalLM"),  # transformers' spelling, MosaicML's
    model_types=("mpt",),
    spec=_spec,
    names={
        "transformer.wte": "embed",
        "transformer.blocks.{i}.norm_1": "layers.{i}.attn_norm",
        "transformer.blocks.{i}.attn.Wqkv": "layers.{i}.attention.qkv",
        "transformer.blocks.{i}.attn.out_proj": "layers.{i}.attention.out",
        "transformer.blocks.{i}.norm_2": "layers.{i}.mlp_norm",
        "transformer.blocks.{i}.ffn.up_proj": "layers.{i}.mlp.up",
        "transformer.blocks.{i}.ffn.down_proj": "layers.{i}.mlp.down",
        "transformer.norm_f": "final_norm",
        "lm_head": "lm_head",
    },
    length_field="max_seq_len",
    prefix="transformer.",
)
