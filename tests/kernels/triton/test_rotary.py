"""Rotation, the fused preparation of heads and the writing of caches in Triton."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import BOUNDS, assert_within, normal
from toolkit.kernels import reference
from toolkit.kernels.triton.rotary import rotary, rotary_write_kv
from toolkit.kernels.triton.write_kv import write_kv


def turn_exactly(x: Tensor, angles: Tensor, *, interleaved: bool) -> Tensor:
    half = angles.shape[1]
    turn = torch.polar(torch.ones_like(angles.double()), angles.double()).unsqueeze(1)
    pairs, rest = x.double()[..., : 2 * half], x.double()[..., 2 * half :]
    if interleaved:
        first, second = pairs[..., ::2], pairs[..., 1::2]
    else:
        first, second = pairs.chunk(2, dim=-1)
    turned = torch.complex(first.contiguous(), second.contiguous()) * turn
    parts = turned.real, turned.imag
    joined = torch.stack(parts, dim=-1).flatten(-2) if interleaved else torch.cat(parts, dim=-1)
    return torch.cat((joined, rest), dim=-1)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(
    ("num_tokens", "num_heads", "head_dim", "rotary_dim"),
    [(7, 6, 16, 16), (3, 33, 80, 80), (3, 5, 96, 24), (1, 64, 256, 64), (1, 1, 2, 2), (0, 4, 8, 8)],
)
def test_pairs_turn_and_the_rest_passes(
    dtype: torch.dtype,
    interleaved: bool,
    num_tokens: int,
    num_heads: int,
    head_dim: int,
    rotary_dim: int,
    device: torch.device,
):
    query = normal(num_tokens, num_heads, head_dim, seed=0, dtype=dtype).to(device)
    key = normal(num_tokens, 2, head_dim, seed=1, dtype=dtype).to(device)
    angles = normal(num_tokens, rotary_dim // 2, seed=2).to(device)
    turned = rotary(query, key, angles.cos(), angles.sin(), interleaved=interleaved)
    for before, after in zip((query, key), turned, strict=True):
        assert after.dtype is dtype
        # float32 angles, and sums that may cancel: the bound is a term's rounding.
        expected = turn_exactly(before, angles, interleaved=interleaved)
        bound = BOUNDS[dtype]["rtol"] * 4
        torch.testing.assert_close(after.double(), expected, rtol=bound, atol=bound)


def test_heads_may_lie_apart_in_memory(device: torch.device):
    fused = normal(5, 4, 8, seed=0).to(device)
    angles = normal(5, 4, seed=1).to(device)
    query, key = fused.split((3, 1), dim=1)
    apart = rotary(query, key, angles.cos(), angles.sin())
    together = rotary(query.contiguous(), key.contiguous(), angles.cos(), angles.sin())
    assert torch.equal(apart[0], together[0])
    assert torch.equal(apart[1], together[1])
    across = fused.transpose(1, 2).contiguous().transpose(1, 2)
    again = rotary(across[:, :3], across[:, 3:], angles.cos(), angles.sin())
    assert torch.equal(again[0], together[0])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("slots", [[], [0], [11, 3, 4, 9]])
def test_write_kv_fills_exactly_its_slots(
    dtype: torch.dtype, slots: list[int], device: torch.device
):
    key_cache, value_cache = (normal(3, 2, 4, 5, seed=i, dtype=dtype).to(device) for i in range(2))
    fused = normal(len(slots), 6, 5, seed=2, dtype=dtype).to(device)
    key, value = fused[:, 1:3], fused[:, 4:]
    expected = key_cache.clone(), value_cache.clone()
    for row, slot in enumerate(slots):
        expected[0][slot // 4, :, slot % 4] = key[row]
        expected[1][slot // 4, :, slot % 4] = value[row]
    write_kv(key, value, key_cache, value_cache, torch.tensor(slots, dtype=torch.int64).to(device))
    assert torch.equal(key_cache, expected[0])
    assert torch.equal(value_cache, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_norms", [True, False])
@pytest.mark.parametrize("rotary_dim", [0, 24, 80])
@pytest.mark.parametrize("interleaved", [True, False])
def test_the_fused_op_is_norm_rotary_and_write_kv(
    dtype: torch.dtype, has_norms: bool, rotary_dim: int, interleaved: bool, device: torch.device
):
    """Norms add up in another order, which a rounding to bfloat16 hides nearly always."""
    heads = normal(5, 9, 80, seed=0, dtype=dtype).to(device).split((5, 2, 2), dim=1)
    angles = normal(5, rotary_dim // 2, seed=1).to(device)
    cos, sin = (angles.cos(), angles.sin()) if rotary_dim else (None, None)
    norms = tuple(normal(80, seed=seed, dtype=dtype).to(device) for seed in (2, 3))
    how = {"interleaved": interleaved, "head_norms": (*norms, 1e-6) if has_norms else None}
    slots = torch.tensor([7, 0, 5, 2, 9], device=device)
    caches = [torch.zeros(2, 3, 2, 4, 80, dtype=dtype, device=device) for _ in range(2)]
    ours = rotary_write_kv(*heads, cos, sin, *caches[0], slots, **how)
    theirs = reference.rotary_write_kv(*heads, cos, sin, *caches[1], slots, **how)
    assert (ours is heads[0]) == (theirs is heads[0])
    for actual, expected in zip((ours, *caches[0]), (theirs, *caches[1]), strict=True):
        if dtype is torch.bfloat16:
            assert float((actual != expected).float().mean()) < 5e-3
        torch.testing.assert_close(actual, expected, rtol=2**-6, atol=1e-5)
    if dtype is torch.float32:
        assert_within(caches[0][1], caches[1][1].double())
