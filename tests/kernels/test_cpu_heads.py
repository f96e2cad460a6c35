"""Heads on their way into the cache, in C++: rotation, cache writes, and the fused op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.cpu_levels import ROW_LEVELS, library_of
from tests.kernels.numerics import BOUNDS, normal
from toolkit.kernels import reference
from toolkit.kernels.cpu.rows import RowOps


@pytest.fixture(params=ROW_LEVELS)
def ops(request: pytest.FixtureRequest) -> RowOps:
    return RowOps(library_of(request.param))


def fused_heads(num_tokens: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    """Query of 4 heads, key and value of 2: views of one matrix."""
    return list(normal(num_tokens, 8, head_dim, seed=0, dtype=dtype).split((4, 2, 2), dim=1))


def rotary_exactly(x: Tensor, angles: Tensor, *, interleaved: bool) -> Tensor:
    half = angles.shape[1]
    turned, rest = x.double().tensor_split((2 * half,), dim=-1)
    pairs = turned.unflatten(-1, (half, 2) if interleaved else (2, half))
    first, second = pairs.unbind(-1) if interleaved else pairs.unbind(-2)
    turn = torch.polar(torch.ones_like(angles.double()), angles.double()).unsqueeze(1)
    product = torch.view_as_real(torch.complex(first, second) * turn)
    if not interleaved:
        product = product.transpose(-1, -2)
    return torch.cat((product.flatten(-2), rest), dim=-1)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(
    ("num_tokens", "head_dim", "half"),
    [(7, 64, 32), (7, 64, 8), (3, 40, 19), (1, 2, 1), (0, 64, 32)],
)
def test_rotary_is_right(
    ops: RowOps, dtype: torch.dtype, interleaved: bool, num_tokens: int, head_dim: int, half: int
):
    query, key, _ = fused_heads(num_tokens, head_dim, dtype)
    angles = normal(num_tokens, half, seed=1)
    turned = ops.rotary(query, key, angles.cos(), angles.sin(), interleaved=interleaved)
    for before, after in zip((query, key), turned, strict=True):
        expected = rotary_exactly(before, angles, interleaved=interleaved)
        torch.testing.assert_close(after.double(), expected, rtol=BOUNDS[dtype]["rtol"], atol=1e-6)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
@pytest.mark.parametrize("num_tokens", [0, 1, 11])
def test_write_kv_fills_exactly_its_slots(
    ops: RowOps, dtype: torch.dtype, block_size: int, num_tokens: int
):
    _, key, value = fused_heads(num_tokens, 20, dtype)
    shape = (24 // block_size + 1, 2, block_size, 20)
    caches = [normal(*shape, seed=i, dtype=dtype) for i in range(2)]
    expected = [cache.clone() for cache in caches]
    slots = torch.randperm(24, generator=torch.Generator().manual_seed(0))[:num_tokens]
    ops.write_kv(key, value, *caches, slots)
    reference.write_kv(key, value, *expected, slots)
    assert torch.equal(caches[0], expected[0])
    assert torch.equal(caches[1], expected[1])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("has_rotation", [True, False])
@pytest.mark.parametrize("weight_dtype", [None, "own", torch.float32])
def test_the_fused_op_is_its_parts(
    ops: RowOps, dtype: torch.dtype, interleaved: bool, has_rotation: bool, weight_dtype: Any
):
    query, key, value = fused_heads(9, 64, dtype)
    angles = normal(9, 24, seed=1)
    turn = (angles.cos(), angles.sin()) if has_rotation else (None, None)
    norms = None
    if weight_dtype is not None:
        chosen = dtype if weight_dtype == "own" else weight_dtype
        norms = (normal(64, seed=2, dtype=chosen), normal(64, seed=3, dtype=chosen), 1e-6)
    caches = [torch.zeros(3, 2, 4, 64, dtype=dtype) for _ in range(4)]
    slots = torch.tensor([11, 0, 3, 4, 9, 2, 1, 7, 8])
    fused = ops.rotary_write_kv(
        query, key, value, *turn, *caches[:2], slots, interleaved=interleaved, head_norms=norms
    )
    expected_query, expected_key = query, key
    if norms is not None:
        expected_query = ops.rms_norm(query, norms[0], 1e-6)
        expected_key = ops.rms_norm(key, norms[1], 1e-6)
    if has_rotation:
        expected_query, expected_key = ops.rotary(
            expected_query, expected_key, *turn, interleaved=interleaved
        )
    ops.write_kv(expected_key, value, *caches[2:], slots)
    assert torch.equal(fused, expected_query)
    assert torch.equal(caches[0], caches[2])
    assert torch.equal(caches[1], caches[3])
    by_reference = reference.rotary_write_kv(
        query, key, value, *turn, *caches[2:], slots, interleaved=interleaved, head_norms=norms
    )
    # A norm that is rounded the other way, turned: some units in the last place of 1.
    bound = {"rtol": BOUNDS[dtype]["rtol"], "atol": 8 * torch.finfo(dtype).eps}
    torch.testing.assert_close(fused, by_reference, **bound)
    torch.testing.assert_close(caches[0], caches[2], **bound)
