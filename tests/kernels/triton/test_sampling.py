"""The race and the largest logit in Triton: the very tokens of the torch versions."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from tests.kernels.numerics import normal
from toolkit.kernels import reference_sampling
from toolkit.kernels.reference_sampling import gumbel_noise, token_bits
from toolkit.kernels.triton import sampling
from toolkit.kernels.triton.sampling import argmax, race


def keys_for(num_rows: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (num_rows,), generator=generator)


def race_slowly(logits: Tensor, keys: Tensor) -> Tensor:
    noise = gumbel_noise(keys.unsqueeze(1), torch.arange(logits.shape[1]))
    return noise.add_(logits).argmax(dim=1)


# ---- the noise


@triton.jit
def _noise_kernel(key_ptr, bits_ptr, noise_ptr, bound_ptr, count: tl.constexpr):
    token_ids = tl.arange(0, count)
    key = tl.load(key_ptr).to(tl.uint64, bitcast=True)
    bits = sampling._token_bits(key, token_ids)
    tl.store(bits_ptr + token_ids, bits.to(tl.int64, bitcast=True))
    tl.store(noise_ptr + token_ids, sampling._gumbel_noise(bits))
    tl.store(bound_ptr + token_ids, sampling._noise_bound(bits))


@pytest.mark.parametrize("key", [0, -1, -(2**63), 2**63 - 1, 1234567890123456789])
def test_the_bits_are_the_references_and_the_noise_within_the_last_ones(
    key: int, device: torch.device
):
    keys, token_ids = torch.tensor([key], device=device), torch.arange(2048, device=device)
    bits = torch.empty_like(token_ids)
    noise = torch.empty(2048, dtype=torch.float64, device=device)
    bounds = torch.empty(2048, device=device)
    _noise_kernel[(1,)](keys, bits, noise, bounds, count=2048)
    assert torch.equal(bits, token_bits(keys, token_ids))
    expected = gumbel_noise(keys, token_ids)
    torch.testing.assert_close(noise, expected, rtol=4e-16, atol=4e-16)
    assert bool((bounds > expected).all())


# ---- the race


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 1e6])
@pytest.mark.parametrize(("num_rows", "vocab_size"), [(5, 1), (20, 300), (3, 4096), (3, 8193)])
def test_the_race_has_the_exact_winner(
    scale: float, num_rows: int, vocab_size: int, device: torch.device
):
    """Whatever the logits' range: the cheap bound on the noise never hides the winner."""
    logits, keys = scale * normal(num_rows, vocab_size, seed=1), keys_for(num_rows)
    tokens = race(logits.to(device), keys.to(device))
    assert torch.equal(tokens.cpu(), race_slowly(logits, keys))


def test_logits_far_from_zero_race_as_others_do(device: torch.device):
    """At 1e6 a float32 is 0.06 from the next: the bound must not be rounded below the noise."""
    logits, keys = normal(20, 500, seed=1).add_(1e6), keys_for(20)
    for signed in (logits, -logits):
        tokens = race(signed.to(device), keys.to(device))
        assert torch.equal(tokens.cpu(), race_slowly(signed, keys))


@pytest.mark.parametrize("num_possible", [1, 2, 40])
def test_impossible_tokens_never_win(num_possible: int, device: torch.device):
    logits, keys = normal(12, 300, seed=2), keys_for(12)
    order = torch.rand(12, 300, generator=torch.Generator().manual_seed(3)).argsort(dim=1)
    logits.scatter_(1, order[:, num_possible:], -torch.inf)
    tokens = race(logits.to(device), keys.to(device)).cpu()
    assert torch.equal(tokens, race_slowly(logits, keys))
    assert bool(logits.gather(1, tokens.unsqueeze(1)).isfinite().all())


def test_a_row_with_nothing_possible_gets_a_valid_token(device: torch.device):
    logits = torch.full((3, 5000), -torch.inf, device=device)
    logits[1, 4500] = 0.0
    tokens = race(logits, keys_for(3).to(device))
    assert int(tokens[1]) == 4500
    assert bool(((tokens >= 0) & (tokens < 5000)).all())


def test_rows_may_lie_apart_and_race_alone(device: torch.device):
    wide, keys = normal(6, 900, seed=5), keys_for(12)[::2]
    logits = wide[:, 100:500]
    expected = race_slowly(logits, keys)
    assert torch.equal(race(logits.to(device), keys.to(device)).cpu(), expected)
    alone = [
        race(logits[row : row + 1].to(device), keys[row : row + 1].to(device)) for row in (0, 5)
    ]
    assert torch.equal(torch.cat(alone).cpu(), expected[[0, 5]])
    across = wide.t()[:8]
    tokens = race(across.to(device), keys_for(8).to(device))
    assert torch.equal(tokens.cpu(), race_slowly(across, keys_for(8)))


def test_no_rows_draw_nothing(device: torch.device):
    nothing = torch.zeros(0, 9, device=device)
    assert race(nothing, keys_for(0).to(device)).tolist() == []
    assert [x.tolist() for x in argmax(nothing)] == [[], []]


# ---- the largest


@pytest.mark.parametrize("vocab_size", [1, 7, 4096, 4097, 9000])
def test_the_largest_is_found(vocab_size: int, device: torch.device):
    logits = normal(6, vocab_size, seed=6)
    tokens, is_sound = argmax(logits.to(device))
    assert torch.equal(tokens.cpu(), logits.argmax(dim=1))
    assert is_sound.dtype is torch.bool
    assert is_sound.tolist() == [True] * 6


@pytest.mark.parametrize("place", [0, 1, 4095, 4096, 5000])
def test_of_equals_the_first_is_taken(place: int, device: torch.device):
    logits = torch.zeros(2, 5002, device=device)
    logits[0, place:] = 1.0
    logits[1, place], logits[1, -1] = 1.0, 1.0
    assert argmax(logits)[0].tolist() == [place, place]


@pytest.mark.parametrize("place", [0, 4095, 4096, 5001])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_with_a_number_that_is_none_is_not_sound(
    place: int, value: float, device: torch.device
):
    logits = normal(3, 5002, seed=7).to(device)
    logits[1, place] = value
    tokens, is_sound = argmax(logits)
    assert is_sound.tolist() == [True, False, True]
    assert torch.equal(is_sound, reference_sampling.argmax(logits)[1])
    assert bool(((tokens >= 0) & (tokens < 5002)).all())


def test_impossible_tokens_are_sound_unless_all_are(device: torch.device):
    logits = torch.full((2, 50), -torch.inf, device=device)
    logits[0, 44] = -1e30
    tokens, is_sound = argmax(logits)
    assert is_sound.tolist() == [True, False]
    assert int(tokens[0]) == 44
