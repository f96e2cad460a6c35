"""Say how rows lie in memory, and how many of them a program takes.

A program's tile depends on the length of a row alone, never on how many rows there are: a row's
sums are then added in one order, and its result has the same bits in every batch.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

__all__ = ["DTYPES", "RowTile", "StridedRows", "row_tile", "strided_rows"]

# What the kernels compute in float32 and store; another dtype goes to the reference.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Numbers in a tile of short rows: one for each thread of eight warps, four times over.
_TILE = 1024
_NUMBERS_PER_WARP = 512  # 16 a thread: two loads of 16 bytes in bfloat16
_MOST_WARPS = 16


class RowTile(NamedTuple):
    """Whole rows that one program holds: ``rows`` by ``block`` numbers, powers of 2."""

    rows: int
    block: int
    num_warps: int


def row_tile(size: int) -> RowTile:
    """Choose the tile for rows of ``size`` numbers."""
    block = triton.next_power_of_2(max(size, 1))
    rows = max(1, _TILE // block)
    num_warps = min(max(rows * block // _NUMBERS_PER_WARP, 1), _MOST_WARPS)
    return RowTile(rows, block, num_warps)


class StridedRows(NamedTuple):
    """Rows [outer, inner, size] with a contiguous last dimension."""

    x: Tensor
    num_rows: int
    num_inner: int
    outer_stride: int
    inner_stride: int
    weight_stride: int  # from the weight of one inner row to the next; 0 where they share one


def strided_rows(x: Tensor, weight: Tensor) -> StridedRows:
    """View x [..., size] as rows for a weight [size] or [inner, size], copying if need be."""
    size = x.shape[-1]
    num_inner = 1 if weight.dim() == 1 else weight.shape[0]
    if x.dim() == 2 and num_inner == 1:
        x = x.unsqueeze(1)
    if x.dim() != 3 or x.stride(2) != 1:
        x = x.contiguous().view(-1, num_inner, size) if x.numel() else x.new_empty(0, 1, size)
    strides = x.stride(0), x.stride(1)
    return StridedRows(
        x, x.shape[0] * x.shape[1], x.shape[1], *strides, 0 if weight.dim() == 1 else size
    )
