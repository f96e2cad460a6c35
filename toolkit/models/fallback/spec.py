"""Describe a decoder that transformers' own code computes: only what memory and batches need."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.models.spec import KVShape

__all__ = ["TransformersSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSpec:
    """What models.fallback.probing finds out about an architecture that no family describes."""

    family: str  # transformers' class
    vocab_size: int
    num_layers: int
    max_model_len: int  # longest sequence in tokens
    num_kv_heads: int
    head_dim: int
    num_parameters: int
    windows: tuple[int | None, ...] = field(repr=False)  # per layer: positions seen, own included

    @property
    def kv_shape(self) -> KVShape:
        """What one token takes in the KV cache."""
        return KVShape(self.num_layers, self.num_kv_heads, self.head_dim)
