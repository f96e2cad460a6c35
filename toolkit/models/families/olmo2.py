"""OLMo 2: norms after each branch, and over all heads of query and key (arXiv:2501.00656)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec, NormSpec

__all__ = ["OLMO2"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    norm = NormSpec(kind="rms", eps=config.rms_norm_eps, is_wide=True)
    return llama_spec(
        config,
        max_model_len,
        family="olmo2",
        norm=norm,
        norms="post",
        attention={"qk_norm": norm, "qk_norm_over": "all heads"},
    )


OLMO2 = Family(
    name="olmo2",
    architectures=("Olmo2ForCausalLM",),
    model_types=("olmo2",),
    spec=_spec,
    names=LLAMA_NAMES
    | {
        "model.layers.{i}.self_attn.q_norm": "layers.{i}.attention.q_norm",
        "model.layers.{i}.self_attn.k_norm": "layers.{i}.attention.k_norm",
        "model.layers.{i}.post_attention_layernorm": "layers.{i}.attn_out_norm",
        "model.layers.{i}.post_feedforward_layernorm": "layers.{i}.mlp_out_norm",
    },
    prefix="model.",
)
