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
    config: PreTrainedConfig, max_model_len: int, family: str, **changes: Any
) -> DecoderSpec:
    norm = NormSpec(kind="layer", eps=config.layer_norm_eps)
    has_qk_norm = getattr(config, "use_qk_norm", False)
    qk_norm = {"qk_norm": norm, "qk_norm_over": "own head"} if has_qk_norm else {}
    head_dim = config.hidden_size // config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or head_dim
    rope = rope_spec(config, head_dim=head_dim, max_model_len=max_model_len, interleaved=True)
    if family == "cohere2":
        windows = layer_windows(config)
        changes["layer_ropes"] = tuple(rope if window else None for window in windows)
    return llama_spec(
        config,
        max_model_len,
        family=family,
        norm=norm,
        layer="parallel, one norm",
        attention=qk_norm,
        rope=rope,
        logit_scale=config.logit_scale,
        **changes,
    )


def _cohere_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return _cohere(config, max_model_len, "cohere")


def _cohere2_spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return _cohere(config, max_model_len, "cohere2")


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
