"""The race and the largest logit in C++: the very tokens of the torch versions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.cpu_levels import ROW_LEVELS, library_of
from tests.kernels.numerics import normal
from toolkit.kernels import reference_sampling
from toolkit.kernels.cpu.sampling import SamplingOps
from toolkit.kernels.reference_sampling import gumbel_noise


@pytest.fixture(params=ROW_LEVELS)
def ops(request: pytest.FixtureRequest) -> SamplingOps:
    return SamplingOps(library_of(request.param))


def keys_for(num_rows: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (num_rows,), generator=generator)


def race_slowly(logits: Tensor, keys: Tensor) -> Tensor:
    noise = gumbel_noise(keys.unsqueeze(1), torch.arange(logits.shape[1]))
    return noise.add_(logits).argmax(dim=1)


# ---- the race


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 5.0, 1e3, 1e6])
@pytest.mark.parametrize(
    ("num_rows", "vocab_size"), [(40, 1), (40, 7), (40, 8), (40, 300), (9, 5003)]
)
def test_the_race_has_the_exact_winner(
    ops: SamplingOps, scale: float, num_rows: int, vocab_size: int
):
    """Whatever the logits' range: the cheap bound on the noise never hides the winner."""
    logits, keys = scale * normal(num_rows, vocab_size, seed=1), keys_for(num_rows)
    assert torch.equal(ops.race(logits, keys), race_slowly(logits, keys))


def test_logits_far_from_zero_race_as_others_do(ops: SamplingOps):
    """At 1e6 a float32 is 0.06 from the next: the bound must not be rounded below the noise."""
    logits, keys = normal(200, 500, seed=1).add_(1e6), keys_for(200)
    assert torch.equal(ops.race(logits, keys), race_slowly(logits, keys))
    assert torch.equal(ops.race(-logits, keys), race_slowly(-logits, keys))


@pytest.mark.parametrize("is_rising", [True, False])
def test_sorted_logits_race_as_others_do(ops: SamplingOps, is_rising: bool):
    logits = torch.linspace(-20, 20, 4001).repeat(16, 1)
    logits = logits if is_rising else logits.flip(1).contiguous()
    assert torch.equal(ops.race(logits, keys_for(16)), race_slowly(logits, keys_for(16)))


@pytest.mark.parametrize("num_possible", [1, 2, 40, 299])
def test_impossible_tokens_never_win(ops: SamplingOps, num_possible: int):
    logits, keys = normal(50, 300, seed=2), keys_for(50)
    order = torch.rand(50, 300, generator=torch.Generator().manual_seed(3)).argsort(dim=1)
    logits.scatter_(1, order[:, num_possible:], -torch.inf)
    tokens = ops.race(logits, keys)
    assert torch.equal(tokens, race_slowly(logits, keys))
    assert bool(logits.gather(1, tokens.unsqueeze(1)).isfinite().all())


def test_a_row_with_nothing_possible_gets_a_valid_token(ops: SamplingOps):
    logits = torch.full((3, 20), -torch.inf)
    logits[1, 5] = 0.0
    tokens = ops.race(logits, keys_for(3))
    assert int(tokens[1]) == 5
    assert bool(((tokens >= 0) & (tokens < 20)).all())


@pytest.mark.parametrize("level", ROW_LEVELS)
@pytest.mark.parametrize("num_rows", [1, 3, 30])
def test_pieces_for_the_threads_change_nothing(level: str, num_rows: int):
    logits, keys = normal(num_rows, 30_011, seed=4), keys_for(num_rows)
    logits[:, 7] = logits[:, 29_000] = 40.0  # equal maxima in two pieces
    library = library_of(level)
    library.set_num_threads(3)
    tokens = SamplingOps(library).race(logits, keys)
    largest, _ = SamplingOps(library).argmax(logits)
    library.set_num_threads(1)
    assert torch.equal(tokens, race_slowly(logits, keys))
    assert largest.tolist() == [7] * num_rows


def test_rows_may_lie_apart(ops: SamplingOps):
    wide, keys = normal(6, 900, seed=5), keys_for(12)[::2]
    logits = wide[:, 100:500]
    assert torch.equal(ops.race(logits, keys), race_slowly(logits, keys))
    assert torch.equal(ops.argmax(logits)[0], logits.argmax(dim=1))
    assert torch.equal(ops.race(wide.t(), keys_for(900)), race_slowly(wide.t(), keys_for(900)))


def test_no_rows_draw_nothing(ops: SamplingOps):
    assert ops.race(torch.zeros(0, 9), keys_for(0)).tolist() == []
    assert [x.tolist() for x in ops.argmax(torch.zeros(0, 9))] == [[], []]


# ---- the largest


@pytest.mark.parametrize("vocab_size", [1, 7, 16, 17, 1024, 1025, 5003])
def test_the_largest_is_found(ops: SamplingOps, vocab_size: int):
    logits = normal(20, vocab_size, seed=6)
    tokens, is_sound = ops.argmax(logits)
    assert torch.equal(tokens, logits.argmax(dim=1))
    assert is_sound.tolist() == [True] * 20


@pytest.mark.parametrize("place", [0, 1, 15, 16, 1023, 1024, 2000])
def test_of_equals_the_first_is_taken(ops: SamplingOps, place: int):
    logits = torch.zeros(2, 2002)
    logits[0, place:] = 1.0
    logits[1, place], logits[1, -1] = 1.0, 1.0
    assert ops.argmax(logits)[0].tolist() == [place, place]


@pytest.mark.parametrize("place", [0, 3, 16, 1500, 2001])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_with_a_number_that_is_none_is_not_sound(ops: SamplingOps, place: int, value: float):
    logits = normal(3, 2002, seed=7)
    logits[1, place] = value
    assert ops.argmax(logits)[1].tolist() == [True, False, True]
    assert torch.equal(ops.argmax(logits)[1], reference_sampling.argmax(logits)[1])


def test_impossible_tokens_are_sound_unless_all_are(ops: SamplingOps):
    logits = torch.full((2, 50), -torch.inf)
    logits[0, 44] = -1e30
    tokens, is_sound = ops.argmax(logits)
    assert is_sound.tolist() == [True, False]
    assert int(tokens[0]) == 44
