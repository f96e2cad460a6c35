"""A mask function of transformers is read as full causal attention or a window, or refused."""

from __future__ import annotations

import pytest
import torch
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)

from toolkit.models.fallback.masks import window_of

LENGTH = 100


def test_a_causal_mask_has_no_window():
    assert window_of(causal_mask_function, LENGTH) is None


@pytest.mark.parametrize("window", [1, 2, 7, 50, 99])
def test_a_window_is_measured(window: int):
    assert window_of(sliding_window_causal_mask_function(window), LENGTH) == window


@pytest.mark.parametrize("window", [100, 101, 4096])
def test_a_window_that_no_sequence_outgrows_is_none(window: int):
    assert window_of(sliding_window_causal_mask_function(window), LENGTH) is None


@pytest.mark.parametrize("chunk", [2, 3, 7, 10, 25, 33, 49, 50, 51, 99])
def test_chunks_are_no_window(chunk: int):
    chunks = chunked_causal_mask_function(chunk, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="chunks"):
        window_of(chunks, LENGTH)


def test_one_chunk_for_all_is_causal():
    chunks = chunked_causal_mask_function(LENGTH, torch.zeros(1, dtype=torch.int64))
    assert window_of(chunks, LENGTH) is None


@pytest.mark.parametrize(
    "mask", [bidirectional_mask_function, sliding_window_bidirectional_mask_function(5)]
)
def test_a_mask_that_shows_the_future_is_refused(mask: object):
    with pytest.raises(ValueError, match="later tokens"):
        window_of(mask, LENGTH)


def test_a_mask_without_values_is_refused():
    padding = torch.zeros(1, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="one batch"):
        window_of(chunked_causal_mask_function(8, padding), LENGTH)
