"""Multiply a tile of rows by a tile of columns: the loop of linear.py and grouped_linear.py.

The sum over the inputs goes from the first to the last in steps of one size, whatever the tile: no
other program adds to it. So a row's bits do not depend on how many rows there are, as long as the
products of a step are added up alike. On sm_90 they are in half precision, where all tiles have 64
rows or more and take the tensor cores' instruction of one depth (its width does not enter a sum).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels.triton.rounding import dot

__all__ = [
    "FLOAT_TILE",
    "ODD_TILE",
    "LinearTile",
    "add_products",
    "aligned_rows",
    "is_odd",
    "linear_tile",
]

# Rows up to which a map is bound by the weight's bytes, and from which by products.
_FEW_ROWS = 64
_MANY_ROWS = 1024


class LinearTile(NamedTuple):
    """What one program computes, and how the compiler spreads it."""

    rows: int
    columns: int
    inner: int  # inputs a step of the loop
    num_warps: int
    num_stages: int

    def options(self) -> dict[str, int]:
        """Return the arguments of a launch that say so."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "INNER": self.inner,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
        }


# float32 has no exact products on tensor cores: operands and sums fill the registers.
FLOAT_TILE = LinearTile(rows=64, columns=64, inner=32, num_warps=8, num_stages=3)
# Narrow, so that 4096 outputs give 128 programs, about one for each of 132 multiprocessors.
_FEW = LinearTile(rows=64, columns=32, inner=64, num_warps=4, num_stages=5)
_SOME = LinearTile(rows=64, columns=128, inner=64, num_warps=4, num_stages=4)
_MANY = LinearTile(rows=128, columns=256, inner=64, num_warps=8, num_stages=3)


# Where rows do not begin at multiples of 16 numbers, their loads go through registers one number at
# a time: a larger tile would not fit.
ODD_TILE = LinearTile(rows=64, columns=32, inner=64, num_warps=4, num_stages=2)
_ALIGNED = 16


def linear_tile(num_rows: int, in_features: int, dtype: torch.dtype) -> LinearTile:
    """Choose for a number of rows; ``inner`` is the same for all."""
    if dtype is torch.float32:
        return FLOAT_TILE
    if is_odd(in_features):
        return ODD_TILE
    if num_rows <= _FEW_ROWS:
        return _FEW
    return _SOME if num_rows < _MANY_ROWS else _MANY


def is_odd(in_features: int) -> bool:
    """Whether rows of so many numbers, one after the other, cannot be copied 16 bytes at a time."""
    return in_features % _ALIGNED != 0


def aligned_rows(x: Tensor) -> Tensor:
    """Return rows [..., in] that can be copied quickly if their length allows it, or a copy."""
    strides = [stride % _ALIGNED for stride in x.stride()[:-1]]
    is_quick = x.stride(-1) == 1 and not any(strides) and x.data_ptr() % _ALIGNED == 0
    return x if is_quick else x.contiguous()


@triton.jit
def add_products(
    total,  # [ROWS, COLUMNS] float32
    x_ptrs,  # [ROWS, INNER]
    weight_ptrs,  # [INNER, COLUMNS]
    is_row,
    is_column,
    in_features,
    INNER: tl.constexpr,
    IS_WHOLE: tl.constexpr,  # in_features is a multiple of INNER
):
    """Return total + x @ weight over all inputs."""
    inner = tl.arange(0, INNER)
    for start in range(0, in_features, INNER):
        x_mask, weight_mask = is_row[:, None], is_column[None, :]
        if not IS_WHOLE:
            is_inner = start + inner < in_features
            x_mask, weight_mask = x_mask & is_inner[None, :], weight_mask & is_inner[:, None]
        x = tl.load(x_ptrs + start, mask=x_mask, other=0.0)
        weight = tl.load(weight_ptrs + start, mask=weight_mask, other=0.0)
        total = dot(x, weight, total)
    return total
