"""Tiny random checkpoints, as transformers writes them, with what transformers computes on them.

``CONFIGS`` has every family, in the variants that its spec tells apart: windows shorter than the
prompts, grouped heads, heads of another width than hidden_size / num_heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Cohere2Config,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

VOCAB_SIZE = 97
MAX_LEN = 128
COMMON = {
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA = COMMON | {
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LONG = LLAMA | {"max_position_embeddings": MAX_LEN}
WIDE = LONG | {"head_dim": 16}
GPT2 = COMMON | {"n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": MAX_LEN, "n_inner": 56}
NEOX = LONG | {"hidden_act": "gelu", "rotary_pct": 0.5, "tie_word_embeddings": False}
OPT = LONG | {"ffn_dim": 56, "dropout": 0.0}
BLOOM = COMMON | {"hidden_size": 48, "n_layer": 2, "seq_length": MAX_LEN}
# With more heads, their number not a power of two, transformers' rounding of ALiBi to bfloat16
# shows; with eight, and positions below 256, its numbers are exact.
FALCON = COMMON | {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "ffn_hidden_size": 56,
    "max_position_embeddings": MAX_LEN,
}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 5}
SHORT_AND_LONG = {"short_factor": [1.0, 1.3], "long_factor": [1.5, 4.0]}
PROMPTS = [
    [(7 * i + 3 * i * i + 11 * request) % VOCAB_SIZE for i in range(length)]
    for request, length in enumerate((13, 1, 30, 8))
]


def llama(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**(LLAMA | changes))


def scaled_llama(rope_type: str, **parameters: Any) -> LlamaConfig:
    return llama(
        rope_parameters={"rope_type": rope_type, "rope_theta": 10000.0, **parameters},
    )


def qwen3(**changes: Any) -> Qwen3Config:
    return Qwen3Config(**(LLAMA | {"head_dim": 16} | changes))


def mpt(*, attention: dict[str, Any] | None = None, **changes: Any) -> MptConfig:
    sizes = {"d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}
    return MptConfig(**(COMMON | sizes | {"attn_config": attention or {}} | changes))


def phi3(original: int, **changes: Any) -> Phi3Config:
    """Half of each head is rotated, by factors for contexts up to and beyond ``original``."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    rope |= SHORT_AND_LONG | {"original_max_position_embeddings": original}
    settings = {"rope_parameters": rope, "original_max_position_embeddings": original}
    return Phi3Config(**(LONG | settings | changes))


def longrope_llama() -> LlamaConfig:
    return scaled_llama(
        "longrope",
        factor=4.0,
        short_factor=[1.0, 1.1, 1.2, 1.3],
        long_factor=[1.0, 2.0, 3.0, 4.0],
        original_max_position_embeddings=64,
    )


def gemma3() -> Gemma3TextConfig:
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
    }
    return Gemma3TextConfig(
        **(WIDE | {"num_hidden_layers": 3}),
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=20,
        rope_parameters=ropes,
        final_logit_softcapping=9.0,
    )


def one_config_per_family() -> dict[str, PreTrainedConfig]:
    """The variant of each family that exercises the most of its spec."""
    return {
        "llama": LlamaConfig(**WIDE),
        "mistral": MistralConfig(**WIDE, sliding_window=7),
        "mixtral": MixtralConfig(**LONG, **EXPERTS, sliding_window=7),
        "qwen2": Qwen2Config(
            **LONG, use_sliding_window=True, sliding_window=6, max_window_layers=1
        ),
        "qwen3": Qwen3Config(**WIDE),
        "qwen3_moe": Qwen3MoeConfig(
            **(WIDE | {"num_hidden_layers": 3}),
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=24,
            mlp_only_layers=[1],
            norm_topk_prob=True,
        ),
        "gemma": GemmaConfig(**WIDE, hidden_act="gelu_pytorch_tanh"),
        "gemma2": Gemma2Config(
            **WIDE,
            sliding_window=6,
            query_pre_attn_scalar=20,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=9.0,
        ),
        "gemma3": gemma3(),
        "phi3": phi3(MAX_LEN, sliding_window=9),
        "smollm3": SmolLM3Config(
            **LONG, no_rope_layers=[1, 0], use_sliding_window=True, sliding_window=6
        ),
        "olmo2": Olmo2Config(**LONG),
        "granite": GraniteConfig(
            **LONG,
            attention_multiplier=0.2,
            embedding_multiplier=3.0,
            residual_multiplier=0.6,
            logits_scaling=2.0,
        ),
        "cohere": CohereConfig(**LONG, use_qk_norm=True, logit_scale=0.5),
        "cohere2": Cohere2Config(
            **WIDE, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
        ),
        "stablelm": StableLmConfig(
            **LONG, use_qkv_bias=True, qk_layernorm=True, partial_rotary_factor=0.5
        ),
        "starcoder2": Starcoder2Config(**LONG, sliding_window=7, use_bias=True),
        "gpt_oss": GptOssConfig(**WIDE, **EXPERTS, sliding_window=6, attention_bias=True),
        "gpt2": GPT2Config(**GPT2),
        "gpt_neox": GPTNeoXConfig(**NEOX),
        "opt": OPTConfig(**OPT),
        "bloom": BloomConfig(**BLOOM, n_head=6),
        "falcon": FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True),
        "mpt": mpt(max_seq_len=MAX_LEN),
    }


def variants() -> dict[str, PreTrainedConfig]:
    """What else the specs tell apart."""
    llama3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {
        "llama, llama3 rope": LlamaConfig(
            **LONG,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                **llama3,
            },
        ),
        "qwen3_moe, weights not normalised": Qwen3MoeConfig(
            **WIDE,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=24,
            norm_topk_prob=False,
            decoder_sparse_step=2,
        ),
        "phi3, long rope": phi3(2),
        "stablelm, parallel": StableLmConfig(
            **LONG, use_parallel_residual=True, partial_rotary_factor=0.5
        ),
        "gpt2, scales by layer": GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True),
        "gpt_neox, serial": GPTNeoXConfig(**NEOX, use_parallel_residual=False),
        "opt, norms of sums and projected embeddings": OPTConfig(
            **OPT, do_layer_norm_before=False, word_embed_proj_dim=32
        ),
        "bloom, 4 heads": BloomConfig(**BLOOM, n_head=4),
        "falcon, one norm": FalconConfig(
            **FALCON, new_decoder_architecture=True, num_kv_heads=3, num_ln_in_parallel_attn=1
        ),
        "falcon, one key head": FalconConfig(**FALCON),
        "falcon, serial": FalconConfig(**FALCON, multi_query=False, parallel_attn=False, bias=True),
        "falcon, alibi": FalconConfig(
            **(FALCON | {"num_attention_heads": 8}), multi_query=False, alibi=True
        ),
        "mpt, 6 heads": mpt(max_seq_len=MAX_LEN, n_heads=6),
    }


FAMILIES = one_config_per_family()
CONFIGS = FAMILIES | variants()


def write_checkpoint(folder: Path, config: PreTrainedConfig, **save: Any) -> Path:
    """Save a model with random weights, norms and biases included, in float32."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    norm_mean = 0.0 if config.model_type.startswith("gemma") else 1.0  # Gemma stores them less 1
    has_first_norm = getattr(config, "do_layer_norm_before", True)  # not in OPT's 350m
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) in embeddings:
                # Larger, and the newest token's own embedding, tied to the head, decides alone;
                # but without a norm before the first layer, they are all that it sees.
                parameter.normal_(0.0, 0.03 if has_first_norm else 0.5)
            elif name.endswith("sinks"):
                parameter.normal_(0.0, 1.0)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            elif parameter.dim() == 1 or "norm" in name:
                parameter.normal_(norm_mean, 0.15)
            else:
                # Whatever the family's own initialisation: with its 0.02, layers this small add
                # next to nothing to the residual sum, and an error in attention would hide.
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder, **save)
    return folder


def expected_logits(folder: Path, prompts: list[list[int]]) -> list[Tensor]:
    """Compute every position's logits with transformers, one prompt at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # Falcon's eager attention adds ALiBi twice: to its scores, and in the mask meant for sdpa.
    if model.config.model_type != "falcon":
        model.set_attn_implementation("eager")
    model.eval()
    with torch.no_grad():
        return [model(torch.tensor([prompt])).logits[0] for prompt in prompts]
