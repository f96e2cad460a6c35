"""The row ops in C++, at every level of this machine, against float64 within stated bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.cpu_levels import ROW_LEVELS, library_of
from tests.kernels.numerics import BOUNDS, assert_within, normal
from toolkit.kernels import reference
from toolkit.kernels.cpu.rows import RowOps

# Vectors hold 4, 8 or 16 numbers; sums take four vectors at a time.
SIZES = (1, 3, 16, 63, 65, 96, 768)


@pytest.fixture(params=ROW_LEVELS)
def ops(request: pytest.FixtureRequest) -> RowOps:
    return RowOps(library_of(request.param))


def rms_norm_exactly(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return weight.double() * wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def layer_norm_exactly(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    normed = weight.double() * centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return normed if bias is None else normed + bias.double()


# ---- norms


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_wide_weight", [True, False])
def test_rms_norm_is_right(ops: RowOps, dtype: torch.dtype, size: int, has_wide_weight: bool):
    x = 3 * normal(5, size, seed=0, dtype=dtype)
    weight = normal(size, seed=1, dtype=torch.float32 if has_wide_weight else dtype)
    assert_within(ops.rms_norm(x, weight, 1e-5), rms_norm_exactly(x, weight, 1e-5))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_layer_norm_is_right(ops: RowOps, dtype: torch.dtype, size: int, has_bias: bool):
    x = 3 + normal(5, size, seed=0, dtype=dtype)
    weight = normal(size, seed=1, dtype=dtype)
    bias = normal(size, seed=2, dtype=dtype) if has_bias else None
    expected = layer_norm_exactly(x, weight, bias, 1e-5)
    actual = ops.layer_norm(x, weight, bias, 1e-5)
    # Sums that nearly cancel: the bound is one of their terms.
    scale = 1 + expected.abs().max() if size > 1 else 2
    bound = BOUNDS[dtype]["rtol"] * scale
    assert float((actual.double() - expected).abs().max()) <= bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight_dtype", ["own", torch.float32])
def test_rms_norm_rounds_where_the_reference_does(
    ops: RowOps, dtype: torch.dtype, weight_dtype: Any
):
    """Twice with a weight of the rows' dtype, once with a float32 weight: another place shows.

    A sum in another order may move a number across the middle between two: once in thousands.
    """
    x = normal(64, 200, seed=0, dtype=dtype)
    weight = normal(200, seed=1).to(dtype if weight_dtype == "own" else weight_dtype)
    differs = ops.rms_norm(x, weight, 1e-6) != reference.rms_norm(x, weight, 1e-6)
    assert float(differs.float().mean()) < 1e-3
    once_less = reference.rms_norm(x.float(), weight.float(), 1e-6).to(dtype)
    if weight_dtype == "own":
        assert float((once_less != reference.rms_norm(x, weight, 1e-6)).float().mean()) > 0.05


@pytest.mark.parametrize("dtype", BOUNDS)
def test_heads_have_weights_of_their_own(ops: RowOps, dtype: torch.dtype):
    x = normal(7, 3, 40, seed=0, dtype=dtype)
    weight, bias = normal(3, 40, seed=1, dtype=dtype), normal(3, 40, seed=2, dtype=dtype)
    assert_within(ops.rms_norm(x, weight, 1e-5), rms_norm_exactly(x, weight, 1e-5))
    expected = layer_norm_exactly(x, weight, None, 1e-5)
    assert_within(ops.layer_norm(x, weight, None, 1e-5), expected)
    together = ops.layer_norm(x, weight, bias, 1e-5)
    torch.testing.assert_close(together, reference.layer_norm(x, weight, bias, 1e-5))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("shape", [(0, 8), (0, 2, 8), (8,), (2, 3, 4, 8)])
def test_norms_take_any_shape(ops: RowOps, dtype: torch.dtype, shape: tuple[int, ...]):
    x, weight = normal(*shape, seed=0, dtype=dtype), normal(8, seed=1, dtype=dtype)
    assert_within(ops.rms_norm(x, weight, 1e-5), rms_norm_exactly(x, weight, 1e-5))
    assert ops.layer_norm(x, weight, None, 1e-5).shape == x.shape


@pytest.mark.parametrize("dtype", BOUNDS)
def test_norms_read_views_as_they_lie(ops: RowOps, dtype: torch.dtype):
    fused = normal(6, 5, 48, seed=0, dtype=dtype)
    weight = normal(48, seed=1, dtype=dtype)
    views = [fused[:, 1:4], fused[:, 2], fused.transpose(0, 1), fused.transpose(1, 2)[..., :48]]
    for view in views:
        own = weight[: view.shape[-1]]
        assert torch.equal(
            ops.rms_norm(view, own, 1e-5), ops.rms_norm(view.contiguous(), own, 1e-5)
        )
        assert ops.rms_norm(view, own, 1e-5).is_contiguous()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_fused_norm_is_the_sum_and_its_norm(ops: RowOps, dtype: torch.dtype, size: int):
    x, residual = normal(5, size, seed=0, dtype=dtype), normal(5, size, seed=1, dtype=dtype)
    weight, bias = normal(size, seed=2, dtype=dtype), normal(size, seed=3, dtype=dtype)
    total = residual + x
    before = x.clone(), residual.clone()
    for fused, alone in (
        (ops.add_rms_norm(x, residual, weight, 1e-5), ops.rms_norm(total, weight, 1e-5)),
        (
            ops.add_layer_norm(x, residual, weight, bias, 1e-5),
            ops.layer_norm(total, weight, bias, 1e-5),
        ),
    ):
        assert torch.equal(fused[0], alone)
        assert torch.equal(fused[1], total)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_a_fused_norm_takes_a_residual_of_another_dtype(ops: RowOps):
    x, residual = normal(5, 64, seed=0, dtype=torch.bfloat16), normal(5, 64, seed=1)
    weight = normal(64, seed=2)
    normed, total = ops.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, residual + x)
    assert_within(normed, rms_norm_exactly(total, weight, 1e-5))


def test_dtypes_that_the_library_lacks_go_to_the_reference(ops: RowOps):
    x, weight = normal(3, 8, seed=0).double(), normal(8, seed=1).double()
    assert torch.equal(ops.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))
    assert torch.equal(ops.silu_mul(x), reference.silu_mul(x))
    mixed = ops.rms_norm(x.float(), weight.bfloat16(), 1e-5)
    assert torch.equal(mixed, reference.rms_norm(x.float(), weight.bfloat16(), 1e-5))


# ---- gated activations


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("num_tokens", "width"), [(5, 37), (0, 4), (1, 1), (3, 128)])
def test_gated_activations_are_right(ops: RowOps, dtype: torch.dtype, num_tokens: int, width: int):
    gate_up = 3 * normal(num_tokens, 2 * width, seed=0, dtype=dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    assert_within(ops.silu_mul(gate_up), gate / (1 + torch.exp(-gate)) * up)
    exact = gate * 0.5 * torch.erfc(-gate / math.sqrt(2))
    assert_within(ops.gelu_mul(gate_up, "none"), exact * up)
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    assert_within(ops.gelu_mul(gate_up, "tanh"), 0.5 * gate * (1 + torch.tanh(inner)) * up)


def test_activations_are_right_over_their_whole_range(ops: RowOps):
    gate = torch.cat((torch.linspace(-30, 30, 60_001), torch.tensor([-1e30, -200.0, 200.0, 1e30])))
    rows = torch.cat((gate, torch.ones_like(gate))).unsqueeze(0)
    wide = gate.double()
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    for actual, expected in (
        (ops.silu_mul(rows), torch.sigmoid(wide) * wide),
        (ops.gelu_mul(rows, "none"), wide * 0.5 * torch.erfc(-wide / math.sqrt(2))),
        (ops.gelu_mul(rows, "tanh"), 0.5 * wide * (1 + torch.tanh(inner))),
    ):
        torch.testing.assert_close(actual[0].double(), expected, rtol=1e-6, atol=1e-6)


def test_activations_take_views_and_more_dimensions(ops: RowOps):
    wide = normal(4, 3, 40, seed=0)
    for view in (wide, wide[:, 1], wide[:, 1, :30], wide.transpose(0, 1), wide[..., ::2]):
        assert torch.equal(ops.silu_mul(view), ops.silu_mul(view.contiguous()))
        torch.testing.assert_close(ops.silu_mul(view), reference.silu_mul(view))


# ---- batch invariance


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("level", ROW_LEVELS)
def test_a_row_does_not_depend_on_its_neighbours_or_the_threads(level: str, dtype: torch.dtype):
    """Two hundred rows are shared among three threads, one row is not; the bits are the same."""
    x, residual = normal(200, 770, seed=0, dtype=dtype), normal(200, 770, seed=1, dtype=dtype)
    weight = normal(770, seed=2, dtype=dtype)
    heads = x.view(200, 7, 110)
    angles = normal(200, 50, seed=3)

    def results(ops: RowOps, rows: slice) -> list[Tensor]:
        cos, sin = angles[rows].cos(), angles[rows].sin()
        return [
            ops.rms_norm(x[rows], weight, 1e-5),
            ops.layer_norm(x[rows], weight, weight, 1e-5),
            *ops.add_rms_norm(x[rows], residual[rows], weight, 1e-5),
            *ops.add_layer_norm(x[rows], residual[rows], weight, weight, 1e-5),
            ops.silu_mul(x[rows]),
            ops.gelu_mul(x[rows], "none"),
            *ops.rotary(heads[rows], heads[rows], cos, sin),
        ]

    library = library_of(level)
    library.set_num_threads(3)
    together = results(RowOps(library), slice(None))
    library.set_num_threads(1)
    for start, end in ((0, 1), (57, 58), (199, 200), (10, 17)):
        alone = results(RowOps(library), slice(start, end))
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours, theirs[start:end])
