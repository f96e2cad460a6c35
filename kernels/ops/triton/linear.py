"""Multiply rows by a matrix so that a row gets the same bits in every batch.

torch.matmul picks one of cuBLAS's kernels by the number of rows, and some of them cut the sum over
the inputs into parts: He et al. 2025, "Defeating nondeterminism in LLM inference". Here nothing
about that sum depends on the rows (linear_tiles.py). The price is speed: few outputs and few rows
leave processors idle that a cut sum would use.

Request path 7/8: from models.parts, in batch-invariant mode.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.linear_tiles import add_products, aligned_rows, linear_tile
from toolkit.kernels.triton.rounding import narrow
from toolkit.kernels.triton.rows import DTYPES

__all__ = ["linear"]

# Tiles of rows that share a tile of columns while both are in the second-level cache.
_BAND = 8


@triton.jit
def _linear_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    num_rows,
    out_features,
    in_features,
    x_stride,
    weight_stride,
    HAS_BIAS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    BAND: tl.constexpr,
):
    """One program computes ROWS rows by COLUMNS outputs; bands of rows go through all columns."""
    num_row_tiles = tl.cdiv(num_rows, ROWS)
    num_column_tiles = tl.cdiv(out_features, COLUMNS)
    band = tl.program_id(0) // (BAND * num_column_tiles)
    height = tl.minimum(num_row_tiles - band * BAND, BAND)
    place = tl.program_id(0) - band * BAND * num_column_tiles
    rows = (band * BAND + place % height) * ROWS + tl.arange(0, ROWS)
    columns = (place // height) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, INNER)
    is_row, is_column = rows < num_rows, columns < out_features
    rows, columns = rows.to(tl.int64), columns.to(tl.int64)
    total = add_products(
        tl.full((ROWS, COLUMNS), 0.0, tl.float32),
        x_ptr + rows[:, None] * x_stride + inner[None, :],
        weight_ptr + columns[None, :] * weight_stride + inner[:, None],
        is_row,
        is_column,
        in_features,
        INNER,
        IS_WHOLE,
    )
    if HAS_BIAS:
        bias = tl.load(bias_ptr + columns, mask=is_column, other=0.0)
        total += bias.to(tl.float32)[None, :]
    out_ptrs = out_ptr + rows[:, None] * out_features + columns[None, :]
    out = narrow(total, out_ptr.dtype.element_ty)
    tl.store(out_ptrs, out, mask=is_row[:, None] & is_column[None, :])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows by a matrix and add a bias, rounding once: reference.linear."""
    if x.dtype not in DTYPES or x.dtype is not weight.dtype:
        return reference.linear(x, weight, bias)
    num_rows, in_features = x.shape
    out_features = len(weight)
    out = x.new_empty(num_rows, out_features)
    if out.numel() == 0:
        return out
    x, weight = aligned_rows(x), aligned_rows(weight)
    tile = linear_tile(num_rows, in_features, x.dtype)
    num_tiles = triton.cdiv(num_rows, tile.rows) * triton.cdiv(out_features, tile.columns)
    _linear_kernel[(num_tiles,)](
        x,
        weight,
        None if bias is None else bias.contiguous(),
        out,
        num_rows,
        out_features,
        in_features,
        x.stride(0),
        weight.stride(0),
        HAS_BIAS=bias is not None,
        IS_WHOLE=in_features % tile.inner == 0,
        BAND=_BAND,
        **tile.options(),
    )
    return out
