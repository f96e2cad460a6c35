"""Paged attention of single tokens, from naive to fast: a rung per lever, to read and to measure.

``RUNGS`` names them in order; each has all the levers before it. The last is the op itself, whose
kernels are in attention_splits.py; no engine runs the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels.triton.attention import paged_attention
from toolkit.kernels.triton.rounding import dot, narrow

__all__ = ["RUNGS", "Rung", "attend"]

_LOG2_E = tl.constexpr(1.4426950408889634)
_LOWEST = tl.constexpr(-1.0e30)  # as in attention_tiles.py


class Rung(NamedTuple):
    """Which levers are on."""

    name: str
    is_grouped: bool  # a program takes all heads that share keys
    is_tiled: bool  # a step of the loop takes 64 keys, of however many blocks
    is_skipping: bool  # the loop ends with the context, not with the table
    is_base_two: bool  # exp2, and log2(e) is a part of the scale
    is_split: bool  # several programs share a context


RUNGS = (
    Rung("naive", False, False, False, False, False),
    Rung("grouped heads", True, False, False, False, False),
    Rung("tiles of 64 keys", True, True, False, False, False),
    Rung("stops where the context ends", True, True, True, False, False),
    Rung("exp2", True, True, True, True, False),
    Rung("splits: the op", True, True, True, True, True),
)
TILE = 64


@triton.jit
def _rung_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    tables_ptr,
    contexts_ptr,
    num_blocks,  # of a row of the table
    block_stride,
    scale,
    HEADS: tl.constexpr,  # that the program takes: 1, or those that share keys
    GROUP: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,  # HEADS, up to the 16 that a tensor core takes
    TILE: tl.constexpr,
    SKIPS: tl.constexpr,
    BASE_TWO: tl.constexpr,
):
    """Attend from HEADS heads of one token; grid (requests, NUM_HEADS / HEADS)."""
    request, first_head = tl.program_id(0), tl.program_id(1) * HEADS
    rows, dims, columns = tl.arange(0, ROWS), tl.arange(0, HEAD_DIM), tl.arange(0, TILE)
    at = (request * NUM_HEADS + first_head + rows[:, None]) * HEAD_DIM + dims[None, :]
    query = tl.load(query_ptr + at, mask=(rows < HEADS)[:, None], other=0.0)
    context = tl.load(contexts_ptr + request)
    peak, total = tl.full([ROWS], _LOWEST, tl.float32), tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    factor = scale * _LOG2_E if BASE_TWO else scale
    first_block = first_head // GROUP * BLOCK_SIZE * HEAD_DIM
    end = context if SKIPS else num_blocks * BLOCK_SIZE
    for start in range(0, end, TILE):
        places = start + columns
        seen = places < context
        blocks = tl.load(tables_ptr + request * num_blocks + places // BLOCK_SIZE, mask=seen)
        offsets = blocks.to(tl.int64) * block_stride + first_block + places % BLOCK_SIZE * HEAD_DIM
        keys_at = offsets[:, None] + dims[None, :]
        keys = tl.load(key_ptr + keys_at, mask=seen[:, None], other=0.0)
        values = tl.load(value_ptr + keys_at, mask=seen[:, None], other=0.0)
        if ROWS == 1:
            scores = tl.sum(query.to(tl.float32) * keys.to(tl.float32), 1)[None, :]
        else:
            scores = dot(query, tl.trans(keys), tl.zeros([ROWS, TILE], tl.float32))
        scores = tl.where(seen[None, :], scores * factor, -float("inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        if BASE_TWO:
            weights, fade = tl.exp2(scores - new_peak[:, None]), tl.exp2(peak - new_peak)
        else:
            weights, fade = tl.exp(scores - new_peak[:, None]), tl.exp(peak - new_peak)
        total, peak = total * fade + tl.sum(weights, 1), new_peak
        acc = acc * fade[:, None]
        if ROWS == 1:
            acc += tl.sum(tl.trans(weights) * values.to(tl.float32), 0)[None, :]
        else:
            acc = dot(narrow(weights, values.dtype), values, acc)
    out = narrow(acc / total[:, None], out_ptr.dtype.element_ty)
    tl.store(out_ptr + at, out, mask=(rows < HEADS)[:, None])


def attend(
    rung: Rung,
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
) -> Tensor:
    """Attend from a token of each request, its last: reference.paged_attention of such a batch.

    ``head_dim`` and the block size are powers of two, and every context has a token.
    """
    num_requests, num_heads, head_dim = query.shape
    num_kv_heads, block_size = key_cache.shape[1:3]
    if rung.is_split:
        starts = torch.arange(num_requests + 1, dtype=torch.int32, device=query.device)
        where = block_tables, starts, context_lens
        return paged_attention(query, key_cache, value_cache, *where, scale=scale)
    out, group = torch.empty_like(query), num_heads // num_kv_heads
    heads = group if rung.is_grouped else 1
    _rung_kernel[(num_requests, num_heads // heads)](
        query,
        key_cache,
        value_cache,
        out,
        block_tables,
        context_lens,
        block_tables.shape[1],
        key_cache.stride(0),
        scale,
        HEADS=heads,
        GROUP=group,
        NUM_HEADS=num_heads,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size,
        ROWS=max(16, triton.next_power_of_2(group)) if rung.is_grouped else 1,
        TILE=TILE if rung.is_tiled else block_size,
        SKIPS=rung.is_skipping,
        BASE_TWO=rung.is_base_two,
        num_warps=4,
        num_stages=5 if rung.is_tiled else 3,
    )
    return out
