"""Gemma 1, 2 and 3 (text): scaled embeddings, norms stored less 1, softcaps, alternating windows.

arXiv:2403.08295, 2408.00118 (sandwich norms, softcaps), 2503.19786 (two ropes, norms of query and
key in place of the attention's softcap).
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation, layer_windows, refuse
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.rope import rope_spec
from toolkit.models.spec import DecoderSpec, NormSpec

__all__ = ["GEMMA", "GEMMA2", "GEMMA3"]


def _gemma(config: PreTrainedConfig, max_model_len: int, act: str, **changes: Any) -> DecoderSpec:
    is_bidirectional = getattr(config, "use_bidirectional_attention", False)
    refuse("Gemma", {"use_bidirectional_attention": bool(is_bidirectional)})
    return llama_spec(
        config,
        max_model_len,
        norm=_norm(config),
        mlp={"activation": activation(act)},
        embedding_scale=config.hidden_size**0.5,
        **changes,
    )


def _norm(config: PreTrainedConfig) -> NormSpec:
    return NormSpec(kind="rms", eps=config.rms_norm_eps, is_wide=True)


def _gemma1_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return _gemma(config, max_model_len, config.hidden_act, family="gemma")


def _gemma2_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return _gemma(
        config,
        max_model_len,
        config.hidden_activation,
        family="gemma2",
        norms="sandwich",
        attention={
            "windows": layer_windows(config),
            "scale": config.query_pre_attn_scalar**-0.5,
            "softcap": config.attn_logit_softcapping,
        },
        logit_softcap=config.final_logit_softcapping,
    )


def _gemma3_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    ropes = {
        kind: rope_spec(
            config, head_dim=config.head_dim, max_model_len=max_model_len, layer_type=kind
        )
        for kind in set(config.layer_types)
    }
    return _gemma(
        config,
        max_model_len,
        config.hidden_activation,
        family="gemma3",
        norms="sandwich",
        attention={
            "windows": layer_windows(config),
            "scale": config.query_pre_attn_scalar**-0.5,
            "qk_norm": _norm(config),
        },
        layer_ropes=tuple(ropes[kind] for kind in config.layer_types),
        logit_softcap=config.final_logit_softcapping,
    )


_GEMMA_NAMES = LLAMA_NAMES | {
    "model.layers.{i}.input_layernorm": "layers.{i}.attn_norm:plus one",
    "model.layers.{i}.post_attention_layernorm": "layers.{i}.mlp_norm:plus one",
    "model.norm": "final_norm:plus one",
}
_GEMMA2_NAMES = _GEMMA_NAMES | {
    "model.layers.{i}.post_attention_layernorm": "layers.{i}.attn_out_norm:plus one",
    "model.layers.{i}.pre_feedforward_layernorm": "layers.{i}.mlp_norm:plus one",
    "model.layers.{i}.post_feedforward_layernorm": "layers.{i}.mlp_out_norm:plus one",
}

GEMMA = Family(
    name="gemma",
    architectures=("GemmaForCausalLM",),
    model_types=("gemma",),
    spec=_gemma1_spec,
    names=_GEMMA_NAMES,
    prefix="model.",
)
GEMMA2 = Family(
    name="gemma2",
    architectures=("Gemma2ForCausalLM",),
    model_types=("gemma2",),
    spec=_gemma2_spec,
    names=_GEMMA2_NAMES,
    prefix="model.",
)
GEMMA3 = Family(
    name="gemma3",
    architectures=("Gemma3ForCausalLM",),
    model_types=("gemma3_text",),
    spec=_gemma3_spec,
    names=_GEMMA2_NAMES
    | {
        "model.layers.{i}.self_attn.q_norm": "layers.{i}.attention.q_norm:plus one",
        "model.layers.{i}.self_attn.k_norm": "layers.{i}.attention.k_norm:plus one",
    },
    prefix="model.",
)
