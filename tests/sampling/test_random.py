"""Random numbers: Philox by its published answers, and a function of three numbers alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from toolkit.sampling.random import philox, row_keys


def words(text: str) -> np.ndarray:
    return np.array([[int(word, 16)] for word in text.split()], dtype=np.uint64)


# Random123's kat_vectors, philox4x32-10.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str):
    assert (philox(words(counter), words(key)) == words(answer)).all()


def test_philox_works_on_many_counters_at_once():
    counters = np.concatenate([words(counter) for counter, _, _ in KNOWN_ANSWERS], axis=1)
    keys = np.concatenate([words(key) for _, key, _ in KNOWN_ANSWERS], axis=1)
    answers = np.concatenate([words(answer) for _, _, answer in KNOWN_ANSWERS], axis=1)
    assert (philox(counters, keys) == answers).all()


def one(seed: int, sample: int, position: int) -> int:
    return int(row_keys([seed], [sample], [position])[0])


def test_a_number_depends_on_its_own_three_alone():
    rng = random.Random(0)
    triples = [
        (rng.randrange(2**64), rng.randrange(20), rng.randrange(100_000)) for _ in range(200)
    ]
    alone = {triple: one(*triple) for triple in triples}
    for _ in range(5):
        rng.shuffle(triples)
        part = triples[: rng.randint(1, 200)]
        together = row_keys(*zip(*part, strict=True))
        assert together.tolist() == [alone[triple] for triple in part]


def test_each_of_the_three_matters():
    base = one(1, 2, 3)
    assert len({base, one(2, 2, 3), one(1, 3, 3), one(1, 2, 4), one(1 << 32, 2, 3)}) == 5
    # Seed and position do not stand in for each other.
    assert len({one(*order) for order in itertools.permutations((1, 2, 3))}) == 6


def test_all_64_bits_of_a_seed_matter():
    numbers = {one(1 << bit, 0, 0) for bit in range(64)}
    assert len(numbers) == 64


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**64 - 1, 2**70 + 5, 0])
def test_any_integer_is_a_seed(seed: int):
    assert 0 <= one(seed, 0, 0) < 2**64
    assert one(seed, 0, 0) == one(seed % 2**64, 0, 0)


def test_a_key_is_the_first_two_words_of_philox():
    """Counter: position, low half first, then sample and 0. Key: the seed, low half first."""
    block = philox(words("243f6a88 85a308d3 13198a2e 00000000"), words("a4093822 299f31d0"))
    key = one(seed=0x299F31D0A4093822, sample=0x13198A2E, position=0x85A308D3243F6A88)
    assert key == int(block[0, 0]) << 32 | int(block[1, 0])


def test_no_rows_is_no_keys():
    assert row_keys([], [], []).shape == (0,)


def uniform(*axes: Sequence[int]) -> np.ndarray:
    """The keys of rows as numbers in [0, 1)."""
    return row_keys(*axes).astype(np.float64) * 2.0**-64


def chi_square(numbers: np.ndarray, num_bins: int) -> float:
    counts = np.histogram(numbers, bins=num_bins, range=(0.0, 1.0))[0]
    expected = len(numbers) / num_bins
    return float(((counts - expected) ** 2 / expected).sum())


SIZE = 100_000
AXES = {
    "positions": ([5] * SIZE, [0] * SIZE, range(SIZE)),
    "seeds": (range(SIZE), [0] * SIZE, [17] * SIZE),
    "samples": ([5] * SIZE, range(SIZE), [17] * SIZE),
}


@pytest.mark.parametrize("axis", AXES)
def test_numbers_are_uniform_along_every_axis(axis: str):
    numbers = uniform(*AXES[axis])
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    # 99 degrees of freedom: beyond 161 once in ten thousand; these draws never change.
    assert chi_square(numbers, 100) < 161


@pytest.mark.parametrize("axis", AXES)
def test_neighbours_are_independent(axis: str):
    numbers = uniform(*AXES[axis])
    pairs = np.floor(numbers[:-1] * 10) * 10 + np.floor(numbers[1:] * 10)
    assert chi_square(pairs / 100 + 1e-6, 100) < 161
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / SIZE**0.5
