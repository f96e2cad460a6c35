"""RMSNorm in Triton against float64, and the roundings of the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import BOUNDS, assert_within, normal
from toolkit.kernels import reference
from toolkit.kernels.triton.rms_norm import add_rms_norm, rms_norm


def rms_norm_exactly(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.double()
    return weight.double() * wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(
    "shape", [(5, 1), (9, 63), (9, 64), (9, 65), (2, 4097), (0, 7), (8,), (3, 2, 40), (2, 3, 4, 8)]
)
def test_rows_of_any_shape_are_normalised(
    dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
):
    x = 3 * normal(*shape, seed=0, dtype=dtype).to(device)
    weight = normal(shape[-1], seed=1, dtype=dtype).to(device)
    assert_within(rms_norm(x, weight, 1e-5), rms_norm_exactly(x, weight))
    wide = weight.float()
    assert_within(rms_norm(x, wide, 1e-5), rms_norm_exactly(x, wide))


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float32])
def test_it_rounds_where_the_reference_does(weight_dtype: torch.dtype, device: torch.device):
    """A sum in another order may move a number across the middle between two: once in thousands."""
    x = normal(64, 200, seed=0, dtype=torch.bfloat16).to(device)
    weight = normal(200, seed=1, dtype=weight_dtype).to(device)
    differs = rms_norm(x, weight, 1e-6) != reference.rms_norm(x, weight, 1e-6)
    assert float(differs.float().mean()) < 1e-3


def test_heads_may_have_weights_of_their_own_and_lie_apart(device: torch.device):
    fused = normal(6, 5, 48, seed=0).to(device)
    heads, weight = fused[:, 1:4], normal(3, 48, seed=1).to(device)
    assert_within(rms_norm(heads, weight, 1e-5), rms_norm_exactly(heads, weight))
    for view in (heads, fused[:, 2], fused.transpose(0, 1), fused[..., ::2]):
        own = weight[0, : view.shape[-1]]
        normed = rms_norm(view, own, 1e-5)
        assert normed.is_contiguous()
        assert torch.equal(normed, rms_norm(view.contiguous(), own, 1e-5))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("residual_dtype", ["own", torch.float32])
def test_a_fused_norm_is_the_sum_and_its_norm(
    dtype: torch.dtype, residual_dtype: torch.dtype | str, device: torch.device
):
    x = normal(5, 65, seed=0, dtype=dtype).to(device)
    residual = normal(5, 65, seed=1, dtype=dtype).to(device)
    if residual_dtype is torch.float32:
        residual = residual.float()
    weight, before = normal(65, seed=2, dtype=dtype).to(device), (x.clone(), residual.clone())
    normed, total = add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, residual + x)
    assert torch.equal(normed, rms_norm(total, weight, 1e-5))
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_a_row_does_not_depend_on_its_neighbours(device: torch.device):
    x, weight = normal(20, 130, seed=0).to(device), normal(130, seed=1).to(device)
    together = rms_norm(x, weight, 1e-5)
    for row in (0, 7, 19):
        assert torch.equal(rms_norm(x[row : row + 1], weight, 1e-5)[0], together[row])


def test_float64_goes_to_the_reference(device: torch.device):
    x, weight = normal(3, 8, seed=0).double().to(device), normal(8, seed=1).double().to(device)
    assert torch.equal(rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))
    assert add_rms_norm(x, x, weight, 1e-5)[0].dtype is torch.float64
