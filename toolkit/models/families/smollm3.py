"""SmolLM3: Llama's layout without positions in every fourth layer (NoPE, arXiv:2501.18795)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from toolkit.models.families.family import Family, layer_windows
from toolkit.models.families.llama import LLAMA_NAMES, llama_spec
from toolkit.models.rope import rope_spec
from toolkit.models.spec import DecoderSpec

__all__ = ["SMOLLM3"]


def _spec(config: PreTrainedConfig, max_model_len: int) -> DecoderSpec:
    head_dim = config.hidden_size // config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or head_dim
    rope = rope_spec(config, head_dim=head_dim, max_model_len=max_model_len)
    layer_ropes = tuple(rope if has_rope else None for has_rope in config.no_rope_layers)
    windows = layer_windows(config)
    return llama_spec(
        config,
        max_model_len,
        family="smollm3",
        attention={"windows": windows} if config.use_sliding_window else {},
        mlp={"bias": config.mlp_bias},
        layer_ropes=layer_ropes,
    )


SMOLLM3 = Family(
    name="smollm3",
    architectures=("SmolLM3ForCausalLM",),
    model_types=("smollm3",),
    spec=_spec,
    names=LLAMA_NAMES,
    prefix="model.",
)
