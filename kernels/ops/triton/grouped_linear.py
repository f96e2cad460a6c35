"""Multiply each group of rows by its own matrix: the experts of a mixture.

The rows are sorted by group, and where the groups begin is known on the device only. So there are
programs for as many tiles of rows as there can be, and each finds its group by itself; those left
over end at once. No group has a capacity, and no row is dropped: Gale et al. 2022,
arXiv:2211.15841.

Request path 7/8: from models.mlp.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.rounding import dot, narrow
from toolkit.kernels.triton.rows import DTYPES

__all__ = ["grouped_linear"]


class _Tile(NamedTuple):
    rows: int
    columns: int
    inner: int
    num_warps: int
    num_stages: int


# One tile for every number of rows: a row gets the same bits in every batch. With few rows the
# weights' bytes are what counts, and these are the same for any tile. float32 has no tensor cores.
_HALF_TILE = _Tile(rows=64, columns=128, inner=64, num_warps=4, num_stages=4)
_FLOAT_TILE = _Tile(rows=32, columns=64, inner=32, num_warps=4, num_stages=3)


@triton.jit
def _grouped_linear_kernel(
    x_ptr,
    weight_ptr,
    starts_ptr,
    bias_ptr,
    out_ptr,
    num_groups,
    out_features,
    in_features,
    x_stride,
    HAS_BIAS: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    """One program computes ROWS rows of one group by COLUMNS of its outputs."""
    tile = tl.program_id(0)
    groups = tl.arange(0, GROUPS)
    is_group = groups < num_groups
    begins = tl.load(starts_ptr + groups, mask=is_group, other=0)
    ends = tl.load(starts_ptr + groups + 1, mask=is_group, other=0)
    num_tiles = ((ends - begins + ROWS - 1) // ROWS).to(tl.int32)
    last_tiles = tl.cumsum(num_tiles, axis=0)
    if tile >= tl.sum(num_tiles, axis=0):
        return
    group = tl.sum((last_tiles <= tile).to(tl.int32), axis=0)
    is_own = groups == group
    begin = tl.sum(tl.where(is_own, begins, 0), axis=0)
    end = tl.sum(tl.where(is_own, ends, 0), axis=0)
    first_tile = tl.sum(tl.where(is_own, last_tiles - num_tiles, 0), axis=0)

    rows = begin + (tile - first_tile) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, INNER)
    group = group.to(tl.int64)
    x_ptrs = x_ptr + rows[:, None] * x_stride + inner[None, :]
    weight_ptr += group * out_features * in_features
    weight_ptrs = weight_ptr + columns[None, :].to(tl.int64) * in_features + inner[:, None]
    is_row, is_column = rows < end, columns < out_features
    total = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, in_features, INNER):
        is_inner = start + inner < in_features
        x = tl.load(x_ptrs + start, mask=is_row[:, None] & is_inner[None, :], other=0.0)
        weight = tl.load(
            weight_ptrs + start, mask=is_inner[:, None] & is_column[None, :], other=0.0
        )
        total = dot(x, weight, total)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * out_features + columns, mask=is_column, other=0.0)
        total += bias.to(tl.float32)[None, :]
    out_ptrs = out_ptr + rows[:, None] * out_features + columns[None, :]
    out = narrow(total, out_ptr.dtype.element_ty)
    tl.store(out_ptrs, out, mask=is_row[:, None] & is_column[None, :])


def grouped_linear(x: Tensor, weight: Tensor, starts: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply each group of rows by its own matrix: reference.grouped_linear."""
    if x.dtype not in DTYPES or x.dtype is not weight.dtype:
        return reference.grouped_linear(x, weight, starts, bias)
    num_groups, out_features, in_features = weight.shape
    out = x.new_empty(len(x), out_features)
    if out.numel() == 0:
        return out
    if x.stride(1) != 1:
        x = x.contiguous()
    tile = _FLOAT_TILE if x.dtype is torch.float32 else _HALF_TILE
    # A group begins a tile of its own, and ends one that may not be full.
    most_tiles = min(len(x), len(x) // tile.rows + num_groups)
    _grouped_linear_kernel[(most_tiles, triton.cdiv(out_features, tile.columns))](
        x,
        weight.contiguous(),
        starts.contiguous(),
        None if bias is None else bias.contiguous(),
        out,
        num_groups,
        out_features,
        in_features,
        x.stride(0),
        HAS_BIAS=bias is not None,
        GROUPS=triton.next_power_of_2(num_groups),
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        INNER=tile.inner,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return out
