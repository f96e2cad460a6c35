"""Tiny configs of architectures that are to have no spec, and how to load what has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Exaone4Config,
    GlmConfig,
    HeliumConfig,
    MinistralConfig,
    NemotronConfig,
    OlmoConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2MoeConfig,
)

from tests.models.checkpoints import LLAMA
from toolkit.kernels import select_ops
from toolkit.models import TransformersDecoder
from toolkit.models.fallback import load_transformers_decoder, probe
from toolkit.models.hub import read_config

TINY = LLAMA | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def olmo(**changes: Any) -> OlmoConfig:
    return OlmoConfig(**(TINY | changes))


def ministral(**changes: Any) -> MinistralConfig:
    types = ["sliding_attention", "full_attention"]
    return MinistralConfig(
        **(TINY | {"head_dim": 8, "sliding_window": 7, "layer_types": types} | changes)
    )


def undescribed(**changes: Any) -> dict[str, PreTrainedConfig]:
    """Return a config by name; the changes are made to all of them."""
    tiny = TINY | changes
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    exaone_types = ["sliding_attention", "full_attention"]
    return {
        "olmo, clipped": olmo(clip_qkv=0.5, **changes),
        "phi": PhiConfig(**tiny, partial_rotary_factor=0.5),
        "qwen2-moe": Qwen2MoeConfig(**tiny, **experts, shared_expert_intermediate_size=24),
        "ministral, a window in one layer": ministral(**changes),
        "helium": HeliumConfig(**tiny, head_dim=8),
        "glm": GlmConfig(**tiny, head_dim=8),
        "nemotron": NemotronConfig(**tiny),
        "exaone4": Exaone4Config(**tiny, sliding_window=7, layer_types=exaone_types),
    }


def load_fallback(folder: Path, **options: Any) -> TransformersDecoder:
    """Load a checkpoint in transformers' own code, whether or not a family describes it."""
    config = read_config(str(folder), trust_remote_code=options.get("trust_remote_code", False))
    cpu = torch.device("cpu")
    defaults = {
        "ops": select_ops("reference", cpu),
        "dtype": torch.float32,
        "device": cpu,
        "progress": False,
    }
    spec = probe(config, trust_remote_code=options.get("trust_remote_code", False))
    return load_transformers_decoder(folder, config, spec, **(defaults | options))
