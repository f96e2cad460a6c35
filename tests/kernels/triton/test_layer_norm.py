"""LayerNorm in Triton against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import BOUNDS, normal
from toolkit.kernels.triton.layer_norm import add_layer_norm, layer_norm


def layer_norm_exactly(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    normed = weight.double() * centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return normed if bias is None else normed + bias.double()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (9, 63), (9, 65), (2, 4097), (0, 8), (3, 2, 40)])
def test_rows_are_centred_and_scaled(
    dtype: torch.dtype, has_bias: bool, shape: tuple[int, ...], device: torch.device
):
    x = (3 + normal(*shape, seed=0, dtype=dtype)).to(device)
    weight = normal(shape[-1], seed=1, dtype=dtype).to(device)
    bias = normal(shape[-1], seed=2, dtype=dtype).to(device) if has_bias else None
    expected = layer_norm_exactly(x, weight, bias)
    actual = layer_norm(x, weight, bias, 1e-5)
    assert actual.dtype is dtype
    # Sums that nearly cancel: the bound is one of their terms.
    bound = BOUNDS[dtype]["rtol"] * (1 + float(expected.abs().max())) if x.numel() else 0.0
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("has_bias", [True, False])
def test_heads_may_have_weights_of_their_own(has_bias: bool, device: torch.device):
    x, weight = normal(7, 5, 40, seed=0).to(device)[:, 1:4], normal(3, 40, seed=1).to(device)
    bias = normal(3, 40, seed=2).to(device) if has_bias else None
    expected = layer_norm_exactly(x, weight, bias)
    actual = layer_norm(x, weight, bias, 1e-5)
    torch.testing.assert_close(actual.double(), expected, rtol=4e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_fused_norm_is_the_sum_and_its_norm(dtype: torch.dtype, device: torch.device):
    x = normal(5, 65, seed=0, dtype=dtype).to(device)
    residual = normal(5, 65, seed=1).to(device)
    weight, bias = (normal(65, seed=seed, dtype=dtype).to(device) for seed in (2, 3))
    for stream in (residual, residual.to(dtype)):
        normed, total = add_layer_norm(x, stream, weight, bias, 1e-5)
        assert torch.equal(total, stream + x)
        assert torch.equal(normed, layer_norm(total, weight, bias, 1e-5))


def test_a_row_does_not_depend_on_its_neighbours(device: torch.device):
    x, weight = normal(20, 130, seed=0).to(device), normal(130, seed=1).to(device)
    together = layer_norm(x, weight, None, 1e-5)
    for row in (0, 7, 19):
        assert torch.equal(layer_norm(x[row : row + 1], weight, None, 1e-5)[0], together[row])
