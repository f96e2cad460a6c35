"""Say what the ops and the model exchange beside tensors: packed maps, and whole layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["FusedLayers", "LayerParts", "PackedLinear", "StackParts"]


class PackedLinear(Protocol):
    """A linear map with its weight in a layout of the implementation's own."""

    @property
    def is_gated(self) -> bool:
        """Whether the result is act(gate) * up already, half as wide."""

    @property
    def nbytes(self) -> int:
        """Bytes of the weight in this layout, scales included."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [rows, in] to [rows, out]."""

    def dense(self) -> Tensor:
        """Return a copy of the matrix [out, in] in its plain layout; dequantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParts:
    """One plain layer: x += attention(norm(x)), then x += down(act(gate) * up) of norm(x)."""

    qkv: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear
    attn_norm: tuple[Tensor, Tensor | None]  # weight and bias, [hidden]
    mlp_norm: tuple[Tensor, Tensor | None]
    head_norms: tuple[Tensor, Tensor] | None  # RMSNorm weights of query and key heads, [head_dim]
    rotation: tuple[Tensor, Tensor] | None  # cos and sin by position, float32 [positions, half]
    interleaved: bool  # pairs are (2i, 2i + 1)
    sinks: Tensor | None  # [num_heads]
    window: int | None  # positions seen, own included
    scale: float  # multiplies query . key


@dataclass(frozen=True, slots=True, kw_only=True)
class StackParts:
    """Layers of one shape, one after the other, and the norm after them."""

    layers: Sequence[LayerParts]
    final_norm: tuple[Tensor, Tensor | None]
    norm: Literal["rms", "layer"]  # of all but the heads'
    norm_eps: float
    head_norm_eps: float
    activation: str  # of the gate: "silu", "gelu" or "gelu_tanh"
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    softcap: float | None
    alibi_slopes: Tensor | None  # [num_heads] float32
    dtype: torch.dtype  # of activations and caches


class FusedLayers(Protocol):
    """A stack of layers that one call computes, to the same bits as op by op.

    Quantised maps round activations by the number of rows, so where ``rows`` leaves few of many,
    the last layer's are rounded less.
    """

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time that each part of the layers has taken, over all calls so far."""

    def __call__(
        self,
        embedded: Tensor,
        positions: Tensor,
        slots: Tensor,
        block_tables: Tensor,
        query_starts: Tensor,
        context_lens: Tensor,
        kv: Sequence[tuple[Tensor, Tensor]],
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return the final norm of the residual sum, [num_tokens, hidden] or [rows, hidden].

        ``embedded`` [num_tokens, hidden] are the embeddings; ``kv`` has each layer's caches;
        ``rows`` [rows] int64 names the tokens that are wanted, None for all; the rest is as in
        reference.paged_attention. Raises IndexError for an index out of its range, TypeError for
        another dtype, MemoryError if there is no room for the activations.
        """
