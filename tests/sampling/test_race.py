"""The race of tokens: its noise bit for bit, and draws that hardly move when the logits do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.sampling.rows import normal
from toolkit.kernels import reference_sampling
from toolkit.kernels.reference_sampling import gumbel_noise, race, token_bits
from toolkit.sampling.random import row_keys

WORD = 2**64 - 1


def bits_slowly(key: int, token_id: int) -> int:
    """The recipe of the module's docstring, in Python's own integers."""
    z = (key + (token_id + 1) * 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return (z ^ (z >> 31)) >> 12


def keys_of(*keys: int) -> Tensor:
    """Unsigned 64-bit keys as the int64 tensor that carries their bits."""
    return torch.from_numpy(np.array(keys, dtype=np.uint64).view(np.int64))


def seeded_keys(count: int, *, seed: int = 3) -> Tensor:
    return torch.from_numpy(row_keys([seed] * count, [0] * count, range(count)).view(np.int64))


# ---- the noise


def test_the_bits_are_splitmix64s():
    """The first outputs of the published generator for the state 1234567."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    bits = token_bits(keys_of(1234567), torch.arange(5))
    assert bits.tolist() == [word >> 12 for word in published]


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15])
def test_the_bits_follow_the_written_recipe(key: int):
    token_ids = [0, 1, 2, 255, 256, 151_935, 2**31 - 1, 2**31, 2**40]
    bits = token_bits(keys_of(key), torch.tensor(token_ids))
    assert bits.tolist() == [bits_slowly(key, token_id) for token_id in token_ids]


def test_keys_and_tokens_broadcast():
    keys, token_ids = seeded_keys(5), torch.tensor([9, 2, 2, 7])
    together = token_bits(keys.unsqueeze(1), token_ids)
    assert together.shape == (5, 4)
    for row in range(5):
        for column in range(4):
            alone = token_bits(keys[row], token_ids[column])
            assert together[row, column] == alone


def test_noise_is_the_double_logarithm_of_the_bits():
    keys, token_ids = seeded_keys(50).unsqueeze(1), torch.arange(40)
    noise = gumbel_noise(keys, token_ids)
    assert noise.dtype == torch.float64
    for bits, value in zip(
        token_bits(keys, token_ids).ravel().tolist(), noise.ravel().tolist(), strict=True
    ):
        uniform = (bits + 0.5) / 2**52
        assert value == pytest.approx(-math.log(-math.log(uniform)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("bits", [0, 2**52 - 1])
def test_the_extreme_bits_give_finite_noise(bits: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        reference_sampling, "token_bits", lambda keys, token_ids: torch.tensor([bits])
    )
    noise = float(gumbel_noise(keys_of(0), torch.tensor([0])))
    assert noise == pytest.approx(-math.log(53 * math.log(2)) if bits == 0 else 53 * math.log(2))


def test_noise_has_the_law_of_gumbel():
    """Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) once in a thousand; this never changes."""
    values = gumbel_noise(seeded_keys(400).unsqueeze(1), torch.arange(500)).ravel().sort().values
    expected = torch.exp(-torch.exp(-values))
    empirical = torch.arange(1, len(values) + 1) / len(values)
    assert float((expected - empirical).abs().max()) < 1.95 / len(values) ** 0.5


def test_noise_of_neighbouring_rows_and_tokens_is_uncorrelated():
    noise = gumbel_noise(seeded_keys(400).unsqueeze(1), torch.arange(500))
    noise = (noise - noise.mean()) / noise.std()
    for first, second in (
        (noise[:-1], noise[1:]),
        (noise[:, :-1], noise[:, 1:]),
        (noise[:-1, :-1], noise[1:, 1:]),
    ):
        assert abs(float((first * second).mean())) < 4 / first.numel() ** 0.5


# ---- the race


def test_the_winner_has_the_largest_sum_of_logit_and_noise():
    logits, keys = normal(64, 300, seed=0, scale=3.0), seeded_keys(64)
    scores = logits.double() + gumbel_noise(keys.unsqueeze(1), torch.arange(300))
    assert torch.equal(race(logits, keys), scores.argmax(dim=1))


@pytest.mark.parametrize("block", [1, 7, 64, 300, 301])
def test_the_size_of_the_blocks_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch):
    logits, keys = normal(8, 300, seed=1), seeded_keys(8)
    expected = race(logits, keys)
    monkeypatch.setattr(reference_sampling, "_BLOCK_SIZES", {"cpu": 8 * block})
    assert torch.equal(race(logits, keys), expected)


@pytest.mark.parametrize("share", [0.0, 1.1])
@pytest.mark.parametrize("num_possible", [1, 2, 40, 299])
def test_few_tokens_race_as_all_do(
    num_possible: int, share: float, monkeypatch: pytest.MonkeyPatch
):
    """Whether the impossible ones are left out or lose makes no difference."""
    monkeypatch.setattr(reference_sampling, "_SPARSE_SHARE", share)
    logits, keys = normal(50, 300, seed=2), seeded_keys(50)
    order = torch.rand(50, 300, generator=torch.Generator().manual_seed(3)).argsort(dim=1)
    logits.scatter_(1, order[:, num_possible:], -torch.inf)
    scores = logits.double() + gumbel_noise(keys.unsqueeze(1), torch.arange(300))
    assert torch.equal(race(logits, keys), scores.argmax(dim=1))


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_equal_scores_go_to_the_lowest_id(share: float, monkeypatch: pytest.MonkeyPatch):
    def no_noise(keys: Tensor, token_ids: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(keys.shape, token_ids.shape)
        return torch.zeros(shape, dtype=torch.float64)

    monkeypatch.setattr(reference_sampling, "gumbel_noise", no_noise)
    monkeypatch.setattr(reference_sampling, "_SPARSE_SHARE", share)
    monkeypatch.setattr(reference_sampling, "_BLOCK_SIZES", {"cpu": 12})
    logits = torch.tensor(
        [
            [0.0, 2.0, 1.0, 2.0, 2.0, 0.0, 2.0, 2.0],
            [-torch.inf, -torch.inf, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0],
        ]
    )
    assert race(logits, seeded_keys(3)).tolist() == [1, 2, 7]


def test_an_impossible_token_never_wins():
    """Half of the tokens are possible, however low their logits are."""
    logits = torch.full((2_000, 20), -torch.inf)
    logits[:, 5:15] = -1e6
    tokens = race(logits, seeded_keys(2_000))
    assert set(tokens.tolist()) == set(range(5, 15))


def test_a_token_that_is_ten_thousand_times_less_likely_wins_as_often_as_it_should():
    """Far from the middle of the noise: 20 wins are expected, and 5 to 40 are 4.5 deviations."""
    logits = torch.zeros(200_000, 2)
    logits[:, 1] = math.log(1e-4)
    assert 5 < int(race(logits, seeded_keys(200_000)).sum()) < 40


def each_token_its_own(logits: Tensor, seed: int) -> Tensor:
    return 1e-6 * normal(*logits.shape, seed=seed)


def half_of_the_vocabulary(logits: Tensor, seed: int) -> Tensor:
    shift = torch.zeros_like(logits)
    shift[:, : logits.shape[1] // 2] = 1e-6
    return shift


@pytest.mark.parametrize("num_draws", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shift", [each_token_its_own, half_of_the_vocabulary])
def test_rounding_of_the_logits_hardly_ever_changes_a_draw(
    shift: Callable[[Tensor, int], Tensor], num_draws: int
):
    """The two best of a flat race lie within d of each other with probability about d.

    A shift of 1e-6 on a half of the tokens changes the draw when the best is in the other half,
    the second in this one and so close: 0.25 in a million, of 20,000 draws 0.005. Inverting the
    cumulative distribution, whose every edge moves with the tokens before it, changed nine.
    Independent shifts change 0.6 in a million: the mean of the positive part of a difference.
    """
    num_changed = 0
    for start in range(0, num_draws, 1_000):
        logits = normal(1_000, 4096, seed=start, scale=0.01)
        keys = seeded_keys(1_000, seed=start)
        shifted = race(logits + shift(logits, start + 1), keys)
        num_changed += int((race(logits, keys) != shifted).sum())
    assert num_changed < num_draws / 5_000


def test_no_rows_draw_nothing():
    assert race(torch.zeros(0, 9), seeded_keys(0)).tolist() == []
