"""Names of blocks: equal only if the tokens and all before them are."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.cache.blocks import block_hash, block_hashes

TOKENS = st.lists(st.integers(0, 3), max_size=12)
SALTS = st.sampled_from([None, "a", "b"])


@given(TOKENS, TOKENS, SALTS, SALTS, st.integers(1, 4))
def test_names_agree_exactly_as_far_as_prefixes_do(
    left: list[int], right: list[int], salt: str | None, other: str | None, size: int
):
    names, others = (
        block_hashes(left, size, salt=salt),
        block_hashes(right, size, salt=other),
    )
    assert len(names) == len(left) // size
    for index, (name, theirs) in enumerate(zip(names, others, strict=False)):
        end = (index + 1) * size
        assert (name == theirs) == (left[:end] == right[:end] and salt == other)


def test_a_name_depends_on_what_came_before():
    assert block_hashes([1, 2, 3, 4], 2)[1] != block_hashes([9, 2, 3, 4], 2)[1]


def test_names_chain():
    first, second = block_hashes([1, 2, 3, 4], 2)
    assert block_hash(first, [3, 4]) == second


def test_a_name_is_128_bits_of_the_same_in_every_process():
    (name,) = block_hashes([1, 2], 2)
    assert len(name) == 16
    assert name.hex() == block_hashes((1, 2), 2)[0].hex() == "b06f0c667fcccdcd4e38bba3022e26cb"


@pytest.mark.parametrize(
    "lists",
    [
        ([1, 23], [12, 3], [1, 2, 3]),
        ([0], [0, 0], [0, 0, 0]),
        ([256], [1, 0], [0, 1]),
        ([2**31], [2**31 - 1], [-1], [2**32 - 1]),
    ],
)
def test_tokens_are_not_confused_by_their_digits(lists: tuple[list[int], ...]):
    for left, right in combinations(lists, 2):
        assert block_hash(b"", left) != block_hash(b"", right)


def test_salts_never_meet_the_chain():
    """A salt is hashed before it becomes a parent, so no salt can pose as another's prefix."""
    (name,) = block_hashes([1, 2], 2)
    salted = block_hashes([3, 4], 2, salt=name.decode("latin-1"))
    assert salted[0] != block_hashes([1, 2, 3, 4], 2)[1]


def test_a_salt_may_hold_any_text():
    for salt in ("", "ü", "🙂", "\0", "a" * 10_000):
        assert len(block_hashes([1], 1, salt=salt)) == 1
