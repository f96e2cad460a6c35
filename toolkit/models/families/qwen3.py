"""Qwen3 (dense): Llama's layout with norms over each head of query and key, before rotary."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, layer_windows
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec, NormSpec

__all__ = ["QWEN3", "QWEN3_NAMES"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    norm = NormSpec(kind="rms", eps=config.rms_norm_eps)
    attention = {"windows": layer_windows(config), "qk_norm": norm}
    return llama_spec(config, max_model_len, family="qwen3", attention=attention)


QWEN3_NAMES = LLAMA_NAMES | {
    "model.layers.{i}.self_attn.q_norm": "layers.{i}.attention.q_norm",
    "model.layers.{i}.self_attn.k_norm": "layers.{i}.attention.k_norm",
}

QWEN3 = Family(
    name="qwen3",
    architectures=("Qwen3ForCausalLM",),
    model_types=("qwen3",),
    spec=_spec,
    names=QWEN3_NAMES,
    prefix="model.",
)
