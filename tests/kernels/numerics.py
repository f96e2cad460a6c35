"""Inputs with a seed, and comparisons with float64 results within rounding."""

from __future__ import annotations

import torch
from torch import Tensor

CPU = torch.device("cpu")
# Rounding alone: float32 has 24 bits, bfloat16 8.
TOLERANCE = {
    torch.float32: {"atol": 2e-6, "rtol": 2e-6},
    torch.bfloat16: {"atol": 1e-2, "rtol": 1.6e-2},
}
DTYPES = tuple(TOLERANCE)
# For the C++ ops. Results are rounded once or twice, to 24, 8 or 11 bits; 4e-6 leaves room for
# sums of a thousand.
BOUNDS = {
    torch.float32: {"rtol": 4e-6, "atol": 4e-6},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-5},
    torch.float16: {"rtol": 2**-10, "atol": 1e-5},
}


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Compare with a float64 result, within the rounding of the actual dtype."""
    torch.testing.assert_close(actual.double(), expected, **TOLERANCE[actual.dtype])


def assert_within(actual: Tensor, expected: Tensor) -> None:
    """Compare a C++ op's result with a float64 one."""
    torch.testing.assert_close(actual.double(), expected, **BOUNDS[actual.dtype])
