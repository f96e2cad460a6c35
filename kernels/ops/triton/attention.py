"""Attend over a paged cache in Triton: one kernel for chunks, two for single tokens.

A program holds the queries of all heads that share keys as rows of one matrix: keys and values are
read once for the group, and fill a tensor core. Chunks: a program per tile of queries walks over
the keys (Dao 2023, arXiv:2307.08691). Single tokens: attention_splits.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels.triton._tuning import chunk_tiles, invariant_tiles
from toolkit.kernels.triton.attention_splits import attend_singles
from toolkit.kernels.triton.attention_tiles import attend_tiles, first_sums

__all__ = ["paged_attention"]


@triton.jit(do_not_specialize=["num_requests"])
def _chunk_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    tables_ptr,
    starts_ptr,
    contexts_ptr,
    slopes_ptr,
    sinks_ptr,
    num_requests,
    query_stride,
    out_stride,
    table_stride,
    block_stride,
    scale,
    softcap,
    window,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SKIP_SINGLE: tl.constexpr,  # requests with one query are left to split_kernel
):
    """Attend from one tile of one request's queries; grid (tiles of all requests, kv heads)."""
    TOKENS: tl.constexpr = ROWS // GROUP
    # The last tiles of a prompt see the most keys: they start first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head = tl.program_id(1)
    # Request r's tiles begin at starts[r] // TOKENS + r: room for one broken tile each.
    request, stop = 0, num_requests
    while stop - request > 1:
        middle = (request + stop) // 2
        is_after = tl.load(starts_ptr + middle) // TOKENS + middle > tile
        request = tl.where(is_after, request, middle)
        stop = tl.where(is_after, middle, stop)
    start = tl.load(starts_ptr + request)
    num_queries = tl.load(starts_ptr + request + 1) - start
    first = (tile - start // TOKENS - request) * TOKENS
    if SKIP_SINGLE:
        num_queries = tl.where(num_queries == 1, 0, num_queries)
    if first >= num_queries:
        return

    context = tl.load(contexts_ptr + request)
    rows = tl.arange(0, ROWS)
    tokens, heads = rows // GROUP, kv_head * GROUP + rows % GROUP
    dims = tl.arange(0, WIDTH)
    num_here = tl.minimum(num_queries - first, TOKENS)
    valid = tokens < num_here
    mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    token = (start + first).to(tl.int64)
    elements = heads[:, None] * HEAD_DIM + dims[None, :]
    query = tl.load(
        query_ptr + token * query_stride + tokens[:, None] * query_stride + elements,
        mask=mask,
        other=0.0,
    )
    slopes = None
    if slopes_ptr is not None:
        slopes = tl.load(slopes_ptr + heads, mask=valid, other=0.0).to(tl.float32)
    peak, total = first_sums(sinks_ptr, heads, valid, ROWS)
    acc = tl.zeros([ROWS, WIDTH], tl.float32)

    first_position = context - num_queries + first
    last_position = first_position + num_here - 1
    positions = first_position + tokens
    key_ptr += kv_head * BLOCK_SIZE * HEAD_DIM
    value_ptr += kv_head * BLOCK_SIZE * HEAD_DIM
    table_ptr = tables_ptr + tl.cast(request, tl.int64) * table_stride
    # Tiles from full_begin to full_end are seen whole by every row and need no mask.
    end = last_position // TILE + 1
    full_begin = 0
    if window is not None:
        begin = tl.maximum(first_position - window + 1, 0) // TILE
        full_begin = tl.cdiv(tl.maximum(last_position - window + 1, 0), TILE)
        acc, peak, total = attend_tiles(
            acc, peak, total, query, positions, slopes, key_ptr, value_ptr, table_ptr, context,
            begin, full_begin, block_stride, scale, softcap, window,
            HEAD_DIM, WIDTH, BLOCK_SIZE, TILE, True,
        )  # fmt: skip
    full_end = tl.maximum((first_position + 1) // TILE, full_begin)
    acc, peak, total = attend_tiles(
        acc, peak, total, query, positions, slopes, key_ptr, value_ptr, table_ptr, context,
        full_begin, full_end, block_stride, scale, softcap, window,
        HEAD_DIM, WIDTH, BLOCK_SIZE, TILE, False,
    )  # fmt: skip
    acc, peak, total = attend_tiles(
        acc, peak, total, query, positions, slopes, key_ptr, value_ptr, table_ptr, context,
        full_end, end, block_stride, scale, softcap, window,
        HEAD_DIM, WIDTH, BLOCK_SIZE, TILE, True,
    )  # fmt: skip
    out = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    out_at = out_ptr + token * out_stride + tokens[:, None] * out_stride + elements
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=mask)


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    alibi_slopes: Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    batch_invariant: bool = False,
) -> Tensor:
    """Attend causally, as reference.paged_attention does, with keys and values read in place.

    Arguments and result are reference's; query and caches have one dtype: float32, bfloat16 or
    float16, and ``scale`` is positive. Sums are in float32, of probabilities rounded to the dtype.
    Shapes alone decide what is launched: the device is never waited for. A row whose request has no
    context is 0; a row that is in no request is undefined.

    A single token's result is bitwise the same in any batch. ``batch_invariant``: every result is,
    however its request was cut into chunks; single tokens and long prompts then take longer.
    """
    num_tokens, num_heads, head_dim = query.shape
    num_kv_heads, block_size = key_cache.shape[1:3]
    assert query.dtype == key_cache.dtype == value_cache.dtype
    assert key_cache.is_contiguous()
    assert value_cache.is_contiguous()
    if query.stride(2) != 1 or query.stride(1) != head_dim:
        query = query.contiguous()
    out = torch.empty((num_tokens, num_heads, head_dim), dtype=query.dtype, device=query.device)
    if num_tokens == 0:
        return out
    num_requests, group = len(context_lens), num_heads // num_kv_heads
    tensors = {
        "query_ptr": query,
        "key_ptr": key_cache,
        "value_ptr": value_cache,
        "out_ptr": out,
        "tables_ptr": block_tables,
        "starts_ptr": query_starts,
        "contexts_ptr": context_lens,
        "slopes_ptr": alibi_slopes,
        "sinks_ptr": sinks,
        "query_stride": query.stride(0),
        "out_stride": out.stride(0),
        "table_stride": block_tables.stride(0),
        "block_stride": key_cache.stride(0),
    }
    form = {"scale": scale, "softcap": softcap, "window": window}
    sizes = {
        "HEAD_DIM": head_dim,
        "WIDTH": triton.next_power_of_2(head_dim),
        "GROUP": group,
        "BLOCK_SIZE": block_size,
    }
    # With no more tokens than requests, nearly all are single: one kernel takes the batch. With one
    # request and several tokens, none is.
    has_chunks = batch_invariant or num_tokens > num_requests
    has_singles = not batch_invariant and (num_requests > 1 or num_tokens == 1)
    if has_chunks:
        shape = (head_dim, group, query.itemsize)
        mean = triton.cdiv(num_tokens, num_requests)
        tiles = invariant_tiles(*shape) if batch_invariant else chunk_tiles(*shape, mean)
        num_tiles = num_tokens // (tiles.rows // group) + num_requests
        _chunk_kernel[(num_tiles, num_kv_heads)](
            **tensors,
            **form,
            **sizes,
            num_requests=num_requests,
            SKIP_SINGLE=has_singles,
            **tiles.options(),
        )
    if has_singles:
        attend_singles(tensors, form, sizes, skip_chunks=has_chunks)
    return out
