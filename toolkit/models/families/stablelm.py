"""StableLM 2: LayerNorm with biases, partial rope, an option for parallel layers (2402.17834)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.rope import rope_spec
from toolkit.models.spec import DecoderSpec, NormSpec

__all__ = ["STABLELM"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    eps = config.layer_norm_eps
    attention = {"qkv_bias": config.use_qkv_bias, "out_bias": False}
    if config.qk_layernorm:
        attention["qk_norm"] = NormSpec(kind="layer", eps=eps)
        attention["qk_norm_over"] = "own head"
    head_dim = config.hidden_size // config.num_attention_heads
    rope = rope_spec(config, head_dim=head_dim, max_model_len=max_model_len, is_partial=True)
    return llama_spec(
        config,
        max_model_len,
        family="stablelm",
        norm=NormSpec(kind="layer", eps=eps, has_bias=True),
        layer="parallel, one norm" if config.use_parallel_residual else "serial",
        attention=attention,
        rope=rope,
    )


STABLELM = Family(
    name="stablelm",
    architectures=("StableLmForCausalLM",),
    model_types=("stablelm",),
    spec=_spec,
    names=LLAMA_NAMES
    | {
        "model.layers.{i}.self_attn.q_layernorm.norms.{n}": "layers.{i}.attention.q_norm",
        "model.layers.{i}.self_attn.k_layernorm.norms.{n}": "layers.{i}.attention.k_norm",
    },
    prefix="model.",
)
