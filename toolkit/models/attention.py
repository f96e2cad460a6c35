"""One layer's attention: project, write keys and values, attend over the paged cache, project back.

Request path 6/8: from models.layers, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.kernels import Ops
from toolkit.kernels.reference import attention_probs, mix_values
from toolkit.models.batch import FlatBatch
from toolkit.models.parts import Linear, Norm, Part, SharedNorm, SummedLinear
from toolkit.models.sharding import Shard
from toolkit.models.spec import AttentionSpec, DecoderSpec, NormSpec

__all__ = ["Attention", "LayerCache", "Placement", "ProbsRows", "Rotation"]

LayerCache = tuple[Tensor, Tensor]  # keys, values: [num_blocks, num_kv_heads, block_size, head_dim]
Rotation = tuple[Tensor, Tensor]  # cos, sin: [num_tokens, rotary_dim / 2] float32


@dataclass(frozen=True, slots=True)
class ProbsRows:
    """Rows of a flat batch whose attention probabilities are shown, request by request.

    Of each request a run of consecutive rows; its context ends with the last of them.
    """

    rows: Tensor  # [num_rows] int64, in the flat batch
    block_tables: Tensor  # [num_requests, max_blocks] int32
    query_starts: Tensor  # [num_requests + 1] int32, among these rows
    context_lens: Tensor  # [num_requests] int32

    @classmethod
    def whole(cls, batch: FlatBatch) -> ProbsRows:
        """Name all rows of a batch."""
        rows = torch.arange(batch.num_tokens, device=batch.token_ids.device)
        return cls(rows, batch.block_tables, batch.query_starts, batch.context_lens)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a step's tokens stand, in the cache and in their sequences."""

    batch: FlatBatch
    rotations: tuple[Rotation | None, ...]  # of each layer
    alibi_slopes: Tensor | None  # [num_heads] float32
    probs_rows: ProbsRows | None = None  # all rows where None


class Attention(Part):
    """Causal attention with grouped heads, as the spec describes it.

    Of a ``shard``, the spec is the one of its own heads.
    """

    def __init__(self, spec: DecoderSpec, layer: int, ops: Ops, shard: Shard | None = None) -> None:
        super().__init__()
        attention = spec.attention
        qkv_dim = attention.query_dim + 2 * attention.kv_dim
        self.qkv = Linear(spec.hidden_size, qkv_dim, bias=attention.qkv_bias, ops=ops)
        self.out = SummedLinear(
            attention.query_dim, spec.hidden_size, bias=attention.out_bias, ops=ops, shard=shard
        )
        if attention.qk_norm is not None:
            self.q_norm, self.k_norm = (
                _qk_norm(attention, attention.qk_norm, num_heads, ops, shard)
                for num_heads in (attention.num_heads, attention.num_kv_heads)
            )
        self.sinks = nn.Parameter(torch.empty(attention.num_heads)) if attention.has_sinks else None
        self.spec = attention
        self.layer = layer
        self.scale = attention.scale_of(layer)
        self.window = attention.windows[layer]
        rope = spec.ropes[layer]
        self.interleaved = rope is not None and rope.interleaved
        norm = attention.qk_norm
        self.norms_each_head = (
            norm is not None and norm.kind == "rms" and attention.qk_norm_over == "head"
        )
        self.ops = ops

    def project(self, x: Tensor, placement: Placement) -> tuple[Tensor, Tensor, Tensor]:
        """Compute query, key and value [num_tokens, heads, head_dim] as the cache takes them."""
        query, key, value = self._heads(x)
        if self.spec.qk_norm is not None:
            query, key = self._normalise(query, self.q_norm), self._normalise(key, self.k_norm)
        rotation = placement.rotations[self.layer]
        if rotation is not None:
            query, key = self.ops.rotary(query, key, *rotation, interleaved=self.interleaved)
        return query, key, value

    def _heads(self, x: Tensor) -> Sequence[Tensor]:
        """Compute query, key and value before norms and rotation: views of one matrix."""
        spec = self.spec
        qkv = self.qkv(x)
        if spec.clip_qkv is not None:
            qkv = qkv.clamp(-spec.clip_qkv, spec.clip_qkv)
        heads = qkv.view(len(x), -1, spec.head_dim)
        return heads.split((spec.num_heads, spec.num_kv_heads, spec.num_kv_heads), dim=1)

    def _normalise(self, heads: Tensor, norm: Norm) -> Tensor:
        if self.spec.qk_norm_over == "all heads":
            return norm(heads.flatten(1)).view(heads.shape)
        return norm(heads)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cache: LayerCache,
        placement: Placement,
        show_probs: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Cache key and value, then return each head's output [num_tokens, num_heads, head_dim].

        ``show_probs`` gets the probabilities of ``placement.probs_rows`` and returns those to use.
        A row whose probabilities stay as they are keeps the very bits that it has unshown.
        """
        self.ops.write_kv(key, value, *cache, placement.batch.slots)
        heads = self._read_cache(query, cache, placement)
        if show_probs is None:
            return heads
        shown = placement.probs_rows or ProbsRows.whole(placement.batch)
        where = shown.block_tables, shown.query_starts, shown.context_lens
        probs = attention_probs(query[shown.rows], cache[0], *where, **self._how(placement))
        wanted = show_probs(probs)
        if wanted is probs:
            return heads
        is_new = (wanted != probs).flatten(1).any(dim=1)
        mixed = mix_values(wanted, cache[1], *where)
        return heads.index_copy(0, shown.rows[is_new], mixed[is_new])

    def forward(self, x: Tensor, cache: LayerCache, placement: Placement) -> Tensor:
        """Map x [num_tokens, hidden] to [num_tokens, hidden]: project and attend, fused."""
        query, key, value = self._heads(x)
        head_norms = None
        if self.norms_each_head:
            head_norms = (self.q_norm.weight, self.k_norm.weight, self.q_norm.spec.eps)
        elif self.spec.qk_norm is not None:
            query, key = self._normalise(query, self.q_norm), self._normalise(key, self.k_norm)
        cos, sin = placement.rotations[self.layer] or (None, None)
        query = self.ops.rotary_write_kv(
            query,
            key,
            value,
            cos,
            sin,
            *cache,
            placement.batch.slots,
            interleaved=self.interleaved,
            head_norms=head_norms,
        )
        return self.out(self._read_cache(query, cache, placement).flatten(1))

    def _read_cache(self, query: Tensor, cache: LayerCache, placement: Placement) -> Tensor:
        batch = placement.batch
        where = batch.block_tables, batch.query_starts, batch.context_lens
        return self.ops.paged_attention(query, *cache, *where, **self._how(placement))

    def _how(self, placement: Placement) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "alibi_slopes": placement.alibi_slopes,
            "window": self.window,
            "softcap": self.spec.softcap,
            "sinks": self.sinks,
        }


def _qk_norm(
    spec: AttentionSpec, norm: NormSpec, num_heads: int, ops: Ops, shard: Shard | None
) -> Norm:
    if spec.qk_norm_over == "all heads":
        shape = (num_heads * spec.head_dim,)
        return Norm(shape, norm, ops) if shard is None else SharedNorm(shape, norm, ops, shard)
    is_own = spec.qk_norm_over == "own head"
    return Norm((num_heads, spec.head_dim) if is_own else (spec.head_dim,), norm, ops)
