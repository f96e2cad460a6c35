"""Qwen3-MoE: Qwen3 with a mixture of many small experts in some or all layers."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation, one_window
from toolkit.models.families.llama import llama_spec
from toolkit.models.families.qwen3 import QWEN3_NAMES
from toolkit.models.spec import DecoderSpec, MoeSpec, NormSpec

__all__ = ["QWEN3_MOE"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    moe = MoeSpec(
        num_experts=config.num_experts,
        num_active=config.num_experts_per_tok,
        intermediate_size=config.moe_intermediate_size,
        activation=activation(config.hidden_act),
        normalised=config.norm_topk_prob,
    )
    is_dense = [
        layer in config.mlp_only_layers or (layer + 1) % config.decoder_sparse_step
        for layer in range(config.num_hidden_layers)
    ]
    return llama_spec(
        config,
        max_model_len,
        family="qwen3_moe",
        attention={
            "windows": one_window(config),
            "qk_norm": NormSpec(kind="rms", eps=config.rms_norm_eps),
        },
        moe=moe,
        moe_layers=tuple(layer for layer, dense in enumerate(is_dense) if not dense),
    )


_EXPERT = "model.layers.{i}.mlp.experts.{n}"

QWEN3_MOE = Family(
    name="qwen3_moe",
    architectures=("Qwen3MoeForCausalLM",),
    model_types=("qwen3_moe",),
    spec=_spec,
    names=QWEN3_NAMES
    | {
        "model.layers.{i}.mlp.gate": "layers.{i}.mlp.router",
        f"{_EXPERT}.gate_proj": "layers.{i}.mlp.gate_up:gate",
        f"{_EXPERT}.up_proj": "layers.{i}.mlp.gate_up:up",
        f"{_EXPERT}.down_proj": "layers.{i}.mlp.down",
    },
    prefix="model.",
)
