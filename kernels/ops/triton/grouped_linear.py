"""Multiply each group of rows by its own matrix: the experts of a mixture.

The rows are sorted by group, and where the groups begin is known on the device only. So there are
programs for as many tiles of rows as there can be, and each finds its group by itself; those left
over end at once. No group has a capacity, and no row is dropped: Gale et al. 2022,
arXiv:2211.15841.

Request path 7/8: from models.mlp.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.linear_tiles import (
    FLOAT_TILE,
    ODD_TILE,
    LinearTile,
    add_products,
    aligned_rows,
    is_odd,
)
from toolkit.kernels.triton.rounding import narrow
from toolkit.kernels.triton.rows import DTYPES

__all__ = ["grouped_linear"]


# One tile for every number of rows: where groups begin is not known when the tile is chosen. With
# few rows the weights' bytes are what counts, and these are the same for any tile.
_HALF_TILE = LinearTile(rows=64, columns=128, inner=64, num_warps=4, num_stages=4)


def _tile(in_features: int, dtype: torch.dtype) -> LinearTile:
    if dtype is torch.float32:
        return FLOAT_TILE
    return ODD_TILE if is_odd(in_features) else _HALF_TILE


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
    IS_WHOLE: tl.constexpr,
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
    weight_ptr += group * out_features * in_features
    is_row, is_column = rows < end, columns < out_features
    total = add_products(
        tl.full((ROWS, COLUMNS), 0.0, tl.float32),
        x_ptr + rows[:, None] * x_stride + inner[None, :],
        weight_ptr + columns[None, :].to(tl.int64) * in_features + inner[:, None],
        is_row,
        is_column,
        in_features,
        INNER,
        IS_WHOLE,
    )
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
    x = aligned_rows(x)
    tile = _tile(in_features, x.dtype)
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
        IS_WHOLE=in_features % tile.inner == 0,
        GROUPS=triton.next_power_of_2(num_groups),
        **tile.options(),
    )
    return out
