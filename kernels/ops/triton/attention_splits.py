"""Attend from single tokens by splits of their context, and merge the splits.

Dao et al. 2023, "Flash-Decoding for long-context inference". How a token's context is split depends
on its own length alone, so that its result does not depend on the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from toolkit.kernels.triton._tuning import MAX_SPLITS, SPLIT_SIZE, num_pieces, split_tiles
from toolkit.kernels.triton.attention_tiles import LOG2_E, LOWEST, attend_tiles, first_sums

__all__ = ["attend_singles"]


@triton.jit
def _splits(position, window, SPLIT: tl.constexpr, MAX_SPLITS: tl.constexpr, TILE: tl.constexpr):
    """Return (begin, size, count) of the splits of what a query sees; begin is a tile's."""
    begin = 0
    if window is not None:
        begin = tl.maximum(position - window + 1, 0) // TILE * TILE
    span = tl.maximum(position + 1 - begin, 1)  # a row of padding may have no context
    size = SPLIT * tl.cdiv(span, SPLIT * MAX_SPLITS)
    return begin, size, tl.cdiv(span, size)


@triton.jit
def _split_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    partial_ptr,  # [num_tokens, num_heads, num_slots, HEAD_DIM] float32: acc of attend_tiles
    sums_ptr,  # [num_tokens, num_heads, num_slots, 2] float32: its peak and total
    tables_ptr,
    starts_ptr,
    contexts_ptr,
    slopes_ptr,
    sinks_ptr,
    query_stride,
    out_stride,
    table_stride,
    block_stride,
    num_slots,
    scale,
    softcap,
    window,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    SKIP_CHUNKS: tl.constexpr,  # requests with several queries are left to the chunks' kernel
):
    """Attend from single queries to some splits; grid (kv heads, requests, pieces)."""
    kv_head, request = tl.program_id(0), tl.program_id(1)
    start, stop = tl.load(starts_ptr + request), tl.load(starts_ptr + request + 1)
    if SKIP_CHUNKS:
        stop = tl.where(stop - start == 1, stop, start)
    context = tl.load(contexts_ptr + request)
    rows, dims = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    valid = rows < GROUP
    heads = kv_head * GROUP + rows
    mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    elements = heads[:, None] * HEAD_DIM + dims[None, :]
    slopes = None
    if slopes_ptr is not None:
        slopes = tl.load(slopes_ptr + heads, mask=valid, other=0.0).to(tl.float32)
    key_ptr += kv_head * BLOCK_SIZE * HEAD_DIM
    value_ptr += kv_head * BLOCK_SIZE * HEAD_DIM
    table_ptr = tables_ptr + tl.cast(request, tl.int64) * table_stride
    for token in range(start, stop):
        position = context - stop + token
        query = tl.load(
            query_ptr + tl.cast(token, tl.int64) * query_stride + elements, mask=mask, other=0.0
        )
        begin, size, count = _splits(position, window, SPLIT, MAX_SPLITS, TILE)
        for split in range(tl.program_id(2), count, tl.num_programs(2)):
            peak = tl.full([ROWS], LOWEST, tl.float32)
            total = tl.zeros([ROWS], tl.float32)
            if count == 1:
                peak, total = first_sums(sinks_ptr, heads, valid, ROWS)
            first = begin + split * size
            last = tl.minimum(first + size, position + 1)
            acc, peak, total = attend_tiles(
                tl.zeros([ROWS, WIDTH], tl.float32), peak, total, query,
                position + tl.zeros([ROWS], tl.int32), slopes,
                key_ptr, value_ptr, table_ptr, context,
                first // TILE, tl.cdiv(last, TILE), block_stride, scale, softcap, window,
                HEAD_DIM, WIDTH, BLOCK_SIZE, TILE, True,
            )  # fmt: skip
            if count == 1:
                out = acc / tl.where(total > 0.0, total, 1.0)[:, None]
                out_at = out_ptr + tl.cast(token, tl.int64) * out_stride + elements
                tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=mask)
            else:
                num_heads = tl.num_programs(0) * GROUP
                slots = (tl.cast(token, tl.int64) * num_heads + heads) * num_slots + split
                tl.store(sums_ptr + slots * 2, peak, mask=valid)
                tl.store(sums_ptr + slots * 2 + 1, total, mask=valid)
                tl.store(partial_ptr + slots[:, None] * HEAD_DIM + dims[None, :], acc, mask=mask)


@triton.jit
def _merge_kernel(
    partial_ptr,
    sums_ptr,
    out_ptr,
    starts_ptr,
    contexts_ptr,
    sinks_ptr,
    out_stride,
    num_slots,
    window,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    SKIP_CHUNKS: tl.constexpr,
):
    """Merge the splits of single queries that have several; grid (heads, requests)."""
    head, request = tl.program_id(0), tl.program_id(1)
    start, stop = tl.load(starts_ptr + request), tl.load(starts_ptr + request + 1)
    if SKIP_CHUNKS:
        stop = tl.where(stop - start == 1, stop, start)
    context = tl.load(contexts_ptr + request)
    splits, dims = tl.arange(0, MAX_SPLITS), tl.arange(0, WIDTH)
    for token in range(start, stop):
        _, _, count = _splits(context - stop + token, window, SPLIT, MAX_SPLITS, TILE)
        if count > 1:
            slots = (tl.cast(token, tl.int64) * tl.num_programs(0) + head) * num_slots + splits
            here = splits < count
            peaks = tl.load(sums_ptr + slots * 2, mask=here, other=LOWEST)
            totals = tl.load(sums_ptr + slots * 2 + 1, mask=here, other=0.0)
            peak = tl.max(peaks, 0)
            if sinks_ptr is not None:
                sink = tl.load(sinks_ptr + head).to(tl.float32) * LOG2_E
                peak = tl.maximum(peak, sink)
            weights = tl.exp2(peaks - peak)
            total = tl.sum(totals * weights, 0)
            if sinks_ptr is not None:
                total += tl.exp2(sink - peak)
            wide = dims < HEAD_DIM
            elements = slots[:, None] * HEAD_DIM + dims[None, :]
            partial = tl.load(partial_ptr + elements, mask=here[:, None] & wide[None, :], other=0.0)
            out = tl.sum(partial * weights[:, None], 0) / total
            out_at = out_ptr + tl.cast(token, tl.int64) * out_stride + head * HEAD_DIM + dims
            tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=wide)


def attend_singles(
    tensors: dict[str, Any], form: dict[str, Any], sizes: dict[str, int], *, skip_chunks: bool
) -> None:
    """Attend from the queries of requests with one, or of all requests without ``skip_chunks``.

    ``tensors`` (with strides), ``form`` (of the scores) and ``sizes`` are the kernel's arguments of
    those names; the result goes into the tensor "out_ptr".
    """
    query, tables, out = tensors["query_ptr"], tensors["tables_ptr"], tensors["out_ptr"]
    num_tokens, num_heads, head_dim = query.shape
    num_requests, num_kv_heads = len(tables), num_heads // sizes["GROUP"]
    tiles = split_tiles(head_dim, sizes["GROUP"], query.itemsize)
    num_positions = tables.shape[1] * sizes["BLOCK_SIZE"]  # no context is longer
    num_slots = max(1, min(MAX_SPLITS, triton.cdiv(num_positions, SPLIT_SIZE)))
    # With one slot, results go straight into `out`, and nothing is written here.
    num_partials = num_tokens * num_heads * num_slots if num_slots > 1 else 1
    partial = torch.empty(num_partials * head_dim, dtype=torch.float32, device=query.device)
    sums = torch.empty(num_partials * 2, dtype=torch.float32, device=query.device)
    splits = {"SPLIT": SPLIT_SIZE, "MAX_SPLITS": MAX_SPLITS, "SKIP_CHUNKS": skip_chunks}
    pieces = num_pieces(num_slots, num_requests, num_kv_heads)
    _split_kernel[(num_kv_heads, num_requests, pieces)](
        **tensors,
        **form,
        **sizes,
        **splits,
        partial_ptr=partial,
        sums_ptr=sums,
        num_slots=num_slots,
        **tiles.options(),
    )
    if num_slots > 1:
        _merge_kernel[(num_heads, num_requests)](
            partial,
            sums,
            out,
            tensors["starts_ptr"],
            tensors["contexts_ptr"],
            tensors["sinks_ptr"],
            tensors["out_stride"],
            num_slots,
            form["window"],
            HEAD_DIM=head_dim,
            WIDTH=sizes["WIDTH"],
            TILE=tiles.positions,
            **splits,
            num_warps=4 if sizes["WIDTH"] <= 128 else 8,
        )
