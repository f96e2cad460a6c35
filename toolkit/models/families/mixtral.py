"""Mixtral: Mistral with a mixture of experts in every layer (arXiv:2401.04088)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, activation, one_window
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec, MoeSpec

__all__ = ["MIXTRAL"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    moe = MoeSpec(
        num_experts=config.num_local_experts,
        num_active=config.num_experts_per_tok,
        intermediate_size=config.intermediate_size,
        activation=activation(config.hidden_act),
    )
    layers = tuple(range(config.num_hidden_layers))
    return llama_spec(
        config,
        max_model_len,
        family="mixtral",
        attention={"windows": one_window(config), "qkv_bias": False, "out_bias": False},
        moe=moe,
        moe_layers=layers,
    )


_MOE = "model.layers.{i}.block_sparse_moe"

MIXTRAL = Family(
    name="mixtral",
    architectures=("MixtralForCausalLM",),
    model_types=("mixtral",),
    spec=_spec,
    names=LLAMA_NAMES
    | {
        f"{_MOE}.gate": "layers.{i}.mlp.router",
        f"{_MOE}.experts.{{n}}.w1": "layers.{i}.mlp.gate_up:gate",
        f"{_MOE}.experts.{{n}}.w3": "layers.{i}.mlp.gate_up:up",
        f"{_MOE}.experts.{{n}}.w2": "layers.{i}.mlp.down",
    },
    prefix="model.",
)
