"""A process has its threads again when its last model in several processes has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from toolkit.runtime.tensor_parallel.shares import share_threads


@pytest.fixture(autouse=True)
def eight_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("first", [0, 1])
def test_the_last_one_that_ends_restores_them_in_whatever_order(first: int):
    shares, ends = zip(*(share_threads(size) for size in (2, 4)), strict=True)
    assert shares == (4, 2)
    assert torch.get_num_threads() == 2
    ends[first]()
    ends[first]()
    assert torch.get_num_threads() == shares[1 - first]
    ends[1 - first]()
    assert torch.get_num_threads() == 8


def test_a_number_that_was_set_in_between_stays():
    _, end = share_threads(2)
    torch.set_num_threads(3)
    end()
    assert torch.get_num_threads() == 3


def test_a_number_that_was_set_in_between_is_what_the_next_one_shares():
    _, end = share_threads(2)
    torch.set_num_threads(6)
    share, end_next = share_threads(2)
    assert share == 3
    end()
    end_next()
    assert torch.get_num_threads() == 6


def test_there_is_a_thread_for_each_process():
    share, end = share_threads(16)
    assert share == torch.get_num_threads() == 1
    end()
