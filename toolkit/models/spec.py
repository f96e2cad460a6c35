"""Declare what a decoder computes: numbers and choices, no tensors.

A family (models.families) turns a Hugging Face config into a DecoderSpec; models.decoder runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from toolkit.errors import InvalidConfig

__all__ = ["AttentionSpec", "DecoderSpec", "KVShape", "MlpSpec", "NormSpec", "RopeSpec"]


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one token takes in the KV cache: a key and a value per layer and head."""

    num_layers: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSpec:
    """A normalisation with a weight and no bias."""

    kind: Literal["rms", "layer"]
    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary positions: the angle of pair i at position p is p * inv_freq[i]."""

    kind: str  # transformers' rope_type
    inv_freq: tuple[float, ...] = field(repr=False)  # radians per position, one per rotated pair
    magnitude: float = 1.0  # cos and sin are multiplied by it (yarn, longrope)

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions of each head that are rotated."""
        return 2 * len(self.inv_freq)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Shapes and scores of every layer's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float  # multiplies query . key
    windows: tuple[int | None, ...] = field(repr=False)  # per layer: positions seen, own included
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: NormSpec | None = None  # over each head of query and key, before rotary
    clip_qkv: float | None = None  # bounds query, key and value to [-clip_qkv, clip_qkv]
    alibi_slopes: tuple[float, ...] | None = field(default=None, repr=False)  # one per head

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InvalidConfig(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.alibi_slopes is not None and len(self.alibi_slopes) != self.num_heads:
            raise InvalidConfig(f"{len(self.alibi_slopes)} ALiBi slopes for {self.num_heads} heads")

    @property
    def query_dim(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together, or of all value heads."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpSpec:
    """The feed-forward part: down(act(gate) * up) when gated, else down(act(up))."""

    intermediate_size: int
    activation: Literal["silu", "gelu", "gelu_tanh"]
    gated: bool
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A pre-norm decoder: x += attention(norm(x)); x += mlp(norm(x)), num_layers times.

    >>> spec = DecoderSpec(
    ...     family="llama", vocab_size=64, hidden_size=32, num_layers=1, max_model_len=128,
    ...     norm=NormSpec(kind="rms", eps=1e-6),
    ...     attention=AttentionSpec(
    ...         num_heads=4, num_kv_heads=2, head_dim=8, scale=8**-0.5, windows=(None,)
    ...     ),
    ...     mlp=MlpSpec(intermediate_size=48, activation="silu", gated=True),
    ...     rope=RopeSpec(kind="default", inv_freq=(1.0, 0.1, 0.01, 0.001)),
    ... )
    >>> spec.attention.kv_dim, spec.rope.rotary_dim
    (16, 8)
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    max_model_len: int  # longest sequence in tokens; rope tables hold this many positions
    norm: NormSpec
    attention: AttentionSpec
    mlp: MlpSpec
    rope: RopeSpec | None = None
    tied_embeddings: bool = False  # the logits read the embedding matrix
    logit_scale: float = 1.0  # multiplies the logits

    def __post_init__(self) -> None:
        if len(self.attention.windows) != self.num_layers:
            raise InvalidConfig(
                f"{len(self.attention.windows)} windows for {self.num_layers} layers"
            )
        if self.rope is not None and self.rope.rotary_dim > self.attention.head_dim:
            raise InvalidConfig(
                f"rotary_dim={self.rope.rotary_dim} exceeds head_dim={self.attention.head_dim}"
            )

    @property
    def kv_shape(self) -> KVShape:
        """What one token takes in the KV cache."""
        return KVShape(self.num_layers, self.attention.num_kv_heads, self.attention.head_dim)
