"""gpt-oss: sinks, a window in every second layer, experts with a clamped SwiGLU (2508.10925).

OpenAI's files hold the experts in MXFP4: models.mxfp4 unpacks them as they are read.
"""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, layer_windows
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec, MoeSpec, NormSpec

__all__ = ["GPT_OSS"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return llama_spec(
        config,
        max_model_len,
        family="gpt_oss",
        norm=NormSpec(kind="rms", eps=config.rms_norm_eps, is_wide=True),
        attention={"windows": layer_windows(config), "has_sinks": True},
        moe=MoeSpec(
            num_experts=config.num_local_experts,
            num_active=config.num_experts_per_tok,
            intermediate_size=config.intermediate_size,
            bias=True,
            swiglu_limit=config.swiglu_limit,
            swiglu_alpha=config.swiglu_alpha,
        ),
        moe_layers=tuple(range(config.num_hidden_layers)),
    )


_MLP, _EXPERTS = "model.layers.{i}.mlp", "model.layers.{i}.mlp.experts"

GPT_OSS = Family(
    name="gpt_oss",
    architectures=("GptOssForCausalLM",),
    model_types=("gpt_oss",),
    spec=_spec,
    names=LLAMA_NAMES
    | {
        "model.layers.{i}.self_attn.sinks": "layers.{i}.attention.sinks",
        f"{_MLP}.router": "layers.{i}.mlp.router",
        f"{_EXPERTS}.gate_up_proj": "layers.{i}.mlp.gate_up.weight:transposed pairs",
        f"{_EXPERTS}.gate_up_proj_bias": "layers.{i}.mlp.gate_up.bias:transposed pairs",
        f"{_EXPERTS}.down_proj": "layers.{i}.mlp.down.weight:transposed",
        f"{_EXPERTS}.down_proj_bias": "layers.{i}.mlp.down.bias:transposed",
    },
    prefix="model.",
)
