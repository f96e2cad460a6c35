from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit.errors import InvalidParameter
from toolkit.kernels.reference_sampling import race
from toolkit.sampling import row_keys
from toolkit.sampling.draws import as_logits, draws


def row(vocab_size: int, *, seed: int, kept: int | None = None) -> torch.Tensor:
    logits = torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * 2
    if kept is not None:
        logits[torch.argsort(logits)[:-kept]] = -torch.inf
    return logits


@pytest.mark.parametrize("kept", [None, 3, 1, 40])
def test_each_draw_is_the_samplers_race_at_its_position(kept: int | None) -> None:
    logits = row(97, seed=1, kept=kept)
    positions = list(range(5, 205))
    keys = torch.from_numpy(row_keys([9] * 200, [2] * 200, positions).view("int64"))
    expected = race(logits.expand(200, -1).contiguous(), keys).tolist()
    assert draws(logits, seed=9, positions=positions, sample_index=2) == expected


def test_draws_come_as_often_as_their_probabilities_say() -> None:
    logits = row(8, seed=2)
    drawn = draws(logits, seed=0, positions=range(20_000))
    shares = np.bincount(drawn, minlength=8) / 20_000
    assert np.abs(shares - logits.softmax(0).numpy()).max() < 0.015


def test_a_large_vocabulary_is_drawn_from_in_parts() -> None:
    logits = row(60_000, seed=3)
    keys = torch.from_numpy(row_keys([4] * 40, [0] * 40, range(40)).view("int64"))
    assert draws(logits, seed=4, positions=range(40)) == race(logits.repeat(40, 1), keys).tolist()


@pytest.mark.parametrize("values", [[1, 2.5], np.array([[1, 2.5]]), torch.tensor([1.0, 2.5])])
def test_a_row_comes_as_a_list_an_array_or_a_tensor(values: object) -> None:
    assert as_logits(values).tolist() == [1.0, 2.5]


def test_the_row_is_a_copy() -> None:
    given = torch.tensor([1.0, 2.0])
    as_logits(given)[0] = 7.0
    assert given.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [], [float("nan"), 1.0], [-torch.inf] * 3, 3.0])
def test_what_is_no_row_of_logits_is_refused(values: object) -> None:
    with pytest.raises(InvalidParameter):
        as_logits(values)
