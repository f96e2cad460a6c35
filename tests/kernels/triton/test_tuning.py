"""The tables of tile shapes: what every entry has to satisfy for the kernels to be right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolkit.kernels.triton._tuning import (
    MAX_SPLITS,
    SPLIT_SIZE,
    Tiles,
    chunk_tiles,
    invariant_tiles,
    num_pieces,
    split_tiles,
)

head_dims, groups, itemsizes = st.integers(1, 256), st.integers(1, 128), st.sampled_from([2, 4])


def is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


@given(head_dims, groups, itemsizes, st.integers(1, 10_000))
def test_a_program_holds_at_least_one_token_of_a_group(
    head_dim: int, group: int, itemsize: int, mean_queries: int
):
    shape = head_dim, group, itemsize
    for tiles in (chunk_tiles(*shape, mean_queries), invariant_tiles(*shape), split_tiles(*shape)):
        assert tiles.rows >= max(16, group)
        assert all(map(is_power_of_two, (tiles.rows, tiles.positions, tiles.num_warps)))
        assert tiles.positions >= 16


@given(head_dims, groups, itemsizes)
def test_a_split_is_made_of_whole_tiles(head_dim: int, group: int, itemsize: int):
    assert SPLIT_SIZE % split_tiles(head_dim, group, itemsize).positions == 0


@given(st.integers(1, MAX_SPLITS), st.integers(1, 5000), st.integers(1, 128))
def test_every_request_has_a_program_and_none_is_in_excess(
    num_splits: int, num_requests: int, num_kv_heads: int
):
    assert 1 <= num_pieces(num_splits, num_requests, num_kv_heads) <= num_splits


def test_the_arguments_of_a_launch_are_named_as_the_kernels_name_them():
    assert Tiles(16, 64, 4, 5).options() == {
        "ROWS": 16,
        "TILE": 64,
        "num_warps": 4,
        "num_stages": 5,
    }
