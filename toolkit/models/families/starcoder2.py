"""StarCoder2: LayerNorm, biases everywhere, a plain MLP, a sliding window (arXiv:2402.19173)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, one_window
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.spec import DecoderSpec, NormSpec

__all__ = ["STARCODER2"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    return llama_spec(
        config,
        max_model_len,
        family="starcoder2",
        norm=NormSpec(kind="layer", eps=config.norm_epsilon, has_bias=True),
        attention={
            "windows": one_window(config),
            "qkv_bias": config.use_bias,
            "out_bias": config.use_bias,
        },
        mlp={"gated": False, "bias": config.use_bias},
    )


STARCODER2 = Family(
    name="starcoder2",
    architectures=("Starcoder2ForCausalLM",),
    model_types=("starcoder2",),
    spec=_spec,
    names={name: ours for name, ours in LLAMA_NAMES.items() if ".mlp." not in name}
    | {
        "model.layers.{i}.mlp.c_fc": "layers.{i}.mlp.up",
        "model.layers.{i}.mlp.c_proj": "layers.{i}.mlp.down",
    },
    prefix="model.",
)
