"""The sizes of a model that decide how long a step takes and how many tokens fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import InvalidConfig

__all__ = ["SHAPES", "ModelShape", "resolve_shape"]

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Families whose MLP has one matrix up and one down; all others have a gate beside them.
_UNGATED = frozenset(("opt", "gpt2", "gpt_neox", "gptj", "phi", "falcon", "bloom", "starcoder2"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder, by its sizes.

    >>> shape = resolve_shape("opt-13b")
    >>> shape.kv_bytes_per_token // 1024, round(shape.num_parameters / 1e9, 1)
    (800, 12.8)
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_model_len: int
    is_gated: bool = True  # the MLP has three matrices, not two
    ties_embeddings: bool = False  # one matrix for input and output tokens
    dtype_bytes: int = 2  # of a weight, and of a key's or value's element

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values, in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype_bytes

    @property
    def qkv_size(self) -> int:
        """Width of query, key and value of a token together."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's four projections."""
        return self.hidden_size * (self.qkv_size + self.num_heads * self.head_dim)

    @property
    def mlp_parameters(self) -> int:
        """Weights of one layer's MLP."""
        return (3 if self.is_gated else 2) * self.hidden_size * self.intermediate_size

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices; norms and biases are less than a thousandth of these."""
        return self.attention_parameters + self.mlp_parameters

    @property
    def num_parameters(self) -> int:
        """Weights of all matrices, embeddings included."""
        embeddings = (1 if self.ties_embeddings else 2) * self.vocab_size * self.hidden_size
        return self.num_layers * self.layer_parameters + embeddings

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.num_parameters * self.dtype_bytes


def _opt(name: str, num_layers: int, hidden_size: int, num_heads: int) -> ModelShape:
    """Return a model of Zhang et al. 2022 (OPT), table 1."""
    return ModelShape(
        name=name,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=4 * hidden_size,
        vocab_size=50_272,
        max_model_len=2_048,
        is_gated=False,
        ties_embeddings=True,
    )


def _llama(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_kv_heads: int,
    intermediate_size: int,
    vocab_size: int,
    max_model_len: int,
    *,
    head_dim: int = 128,
    ties_embeddings: bool = False,
) -> ModelShape:
    """Return a model with a gated MLP, from its published config.json."""
    return ModelShape(
        name=name,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        max_model_len=max_model_len,
        ties_embeddings=ties_embeddings,
    )


SHAPES = {
    shape.name: shape
    for shape in (
        _opt("opt-125m", 12, 768, 12),
        _opt("opt-1.3b", 24, 2_048, 32),
        _opt("opt-6.7b", 32, 4_096, 32),
        _opt("opt-13b", 40, 5_120, 40),
        _opt("opt-30b", 48, 7_168, 56),
        _opt("opt-66b", 64, 9_216, 72),
        _opt("opt-175b", 96, 12_288, 96),
        _llama("llama-7b", 32, 4_096, 32, 32, 11_008, 32_000, 2_048),
        _llama("llama-13b", 40, 5_120, 40, 40, 13_824, 32_000, 2_048),
        _llama("llama-2-7b", 32, 4_096, 32, 32, 11_008, 32_000, 4_096),
        _llama("llama-2-13b", 40, 5_120, 40, 40, 13_824, 32_000, 4_096),
        _llama("llama-2-70b", 80, 8_192, 64, 8, 28_672, 32_000, 4_096),
        _llama("llama-3-8b", 32, 4_096, 32, 8, 14_336, 128_256, 8_192),
        _llama("llama-3-70b", 80, 8_192, 64, 8, 28_672, 128_256, 8_192),
        _llama("llama-3.1-8b", 32, 4_096, 32, 8, 14_336, 128_256, 131_072),
        _llama("mistral-7b", 32, 4_096, 32, 8, 14_336, 32_000, 32_768),
        _llama("yi-34b", 60, 7_168, 56, 8, 20_480, 64_000, 32_768),
        _llama("qwen3-0.6b", 28, 1_024, 16, 8, 3_072, 151_936, 40_960, ties_embeddings=True),
        _llama("qwen3-4b", 36, 2_560, 32, 8, 9_728, 151_936, 40_960, ties_embeddings=True),
        _llama("qwen3-8b", 36, 4_096, 32, 8, 12_288, 151_936, 40_960),
    )
}


def resolve_shape(model: str | Path | ModelShape) -> ModelShape:
    """Return a model's shape: a preset's, that of a folder's config.json, or the one given.

    Raises:
        InvalidConfig: there is no such preset or folder, or its config is not of a dense decoder.
    """
    if isinstance(model, ModelShape):
        return model
    if isinstance(model, str) and model.lower() in SHAPES:
        return SHAPES[model.lower()]
    path = Path(model) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"model={str(model)!r} is neither a preset ({', '.join(SHAPES)}) nor a folder with a "
            f"readable config.json ({error}); a ModelShape(...) describes any other"
        ) from error
    return _from_config(values, Path(model).name)


def _from_config(values: Mapping[str, Any], name: str) -> ModelShape:
    """Return the shape of a Hugging Face config, under the names that its family uses."""
    kind = values.get("model_type", "")
    if any("expert" in key for key in values):
        raise InvalidConfig(
            f"{name}: a mixture of experts computes only a part of its weights for each token, "
            "which no cost model here knows; give a ModelShape of the weights that are computed"
        )
    hidden = _first(values, name, "hidden_size", "n_embd")
    num_heads = _first(values, name, "num_attention_heads", "n_head")
    widths = ("intermediate_size", "ffn_dim", "n_inner")
    is_named = any(values.get(key) is not None for key in widths)
    return ModelShape(
        name=name,
        num_layers=_first(values, name, "num_hidden_layers", "n_layer"),
        hidden_size=hidden,
        num_heads=num_heads,
        num_kv_heads=values.get("num_key_value_heads") or num_heads,
        head_dim=values.get("head_dim") or hidden // num_heads,
        # GPT-2 leaves n_inner out where it is four times the hidden size.
        intermediate_size=_first(values, name, *widths) if is_named else 4 * hidden,
        vocab_size=_first(values, name, "vocab_size"),
        max_model_len=_first(values, name, "max_position_embeddings", "n_positions"),
        is_gated=kind not in _UNGATED,
        ties_embeddings=bool(values.get("tie_word_embeddings", kind in _UNGATED)),
        dtype_bytes=_DTYPE_BYTES.get(str(values.get("dtype") or values.get("torch_dtype")), 2),
    )


def _first(values: Mapping[str, Any], name: str, *keys: str) -> int:
    for key in keys:
        value = values.get(key)
        if isinstance(value, int) and value > 0:
            return value
    raise InvalidConfig(f"the config.json of {name} has no {' or '.join(keys)}")
