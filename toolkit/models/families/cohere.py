"""Cohere's Command R and Aya: parallel layers under one norm, interleaved rope, scaled logits.

Cohere2 (Command R7B, Command A) alternates windows with rope and full layers without positions.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, layer_windows
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.rope import rope_spec
from toolkit.models.spec import DecoderSpec, NormSpec

__all__ = ["COHERE", "COHERE2"]


def _cohere(
    config: PreTrainedConfig, max_model_len: int, family: str, **attention: Any
) -> DecoderSpec:
    head_dim = config.hidden_size // config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or head_dim
    rope = rope_spec(config, head_dim=head_dim, max_model_len=max_model_len, interleaved=True)
    windows = attention.get("windows")
    return llama_spec(
        config,
        max_model_len,
        family=family,
        norm=_norm(config),
        layer="parallel, one norm",
        attention=attention,
        rope=rope,
        layer_ropes=None if windows is None else tuple(rope if w else None for w in windows),
        logit_scale=config.logit_scale,
    )


def _norm(config: PreTrainedConfig) -> NormSpec:
    return NormSpec(kind="layer", eps=config.layer_norm_eps)


def _cohere_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    qk_norm = {"qk_norm": _norm(config), "qk_norm_over": "own head"} if config.use_qk_norm else {}
    return _cohere(config, max_model_len, "cohere", **qk_norm)


def _cohere2_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return _cohere(config, max_model_len, "cohere2", windows=layer_windows(config))


_NAMES = {name: ours for name, ours in LLAMA_NAMES.items() if "mlp_norm" not in ours} | {
    "model.layers.{i}.self_attn.q_norm": "layers.{i}.attention.q_norm",
    "model.layers.{i}.self_attn.k_norm": "layers.{i}.attention.k_norm",
}

COHERE = Family(
    name="cohere",
    architectures=("CohereForCausalLM",),
    model_types=("cohere",),
    spec=_cohere_spec,
    names=_NAMES,
    prefix="model.",
)
COHERE2 = Family(
    name="cohere2",
    architectures=("Cohere2ForCausalLM",),
    model_types=("cohere2",),
    spec=_cohere2_spec,
    names=_NAMES,
    prefix="model.",
)
