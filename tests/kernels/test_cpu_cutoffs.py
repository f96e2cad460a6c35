"""Top-k, top-p and min-p in C++: the sets that the torch version keeps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.kernels.cpu_levels import ROW_LEVELS, library_of
from tests.kernels.numerics import normal
from toolkit.kernels import reference_sampling
from toolkit.kernels.cpu.sampling import SamplingOps


@pytest.fixture(params=ROW_LEVELS)
def ops(request: pytest.FixtureRequest) -> SamplingOps:
    return SamplingOps(library_of(request.param))


def settings(
    logits: Tensor,
    *,
    top_k: Sequence[int] | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> dict:
    """The op's keywords; top_k is repeated over the rows, 0 is off."""
    num_rows, vocab_size = logits.shape
    limits = [k or vocab_size for k in top_k or (0,)] * num_rows
    return {
        "top_k": torch.tensor([min(k, vocab_size) for k in limits[:num_rows]]),
        "max_top_k": min(max(limits, default=0), vocab_size),
        "top_p": None if top_p is None else torch.full((num_rows,), top_p),
        "min_p": None if min_p is None else torch.full((num_rows,), min_p),
    }


@pytest.mark.parametrize("vocab_size", [1, 5, 16, 300, 4099])
@pytest.mark.parametrize("top_k", [(1,), (50,), (0, 3, 700)])
def test_top_k_keeps_the_largest(ops: SamplingOps, vocab_size: int, top_k: Sequence[int]):
    logits = normal(9, vocab_size, seed=0)
    how = settings(logits, top_k=top_k)
    expected = reference_sampling.cut_unlikely(logits, **how)
    assert torch.equal(ops.cut_unlikely(logits.clone(), **how), expected)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.01, 1.0, 6.0, 200.0])
@pytest.mark.parametrize("vocab_size", [1, 5, 300, 20_003])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.95, 0.9999])
def test_top_p_keeps_the_smallest_set_that_reaches_it(
    ops: SamplingOps, scale: float, vocab_size: int, top_p: float
):
    """In float64; a set whose sum is within 1e-6 of p may have a token more or less."""
    logits = 5 + scale * normal(6, vocab_size, seed=1)
    kept = ops.cut_unlikely(logits.clone(), **settings(logits, top_p=top_p)) > -torch.inf
    probs = logits.double().softmax(dim=1)
    for row in range(len(logits)):
        threshold = logits[row][kept[row]].min()
        assert torch.equal(kept[row], logits[row] >= threshold)
        assert float(probs[row][kept[row]].sum()) > top_p - 1e-6
        # Without the tokens at the threshold, too little is left.
        assert float(probs[row][logits[row] > threshold].sum()) < top_p + 1e-6


@pytest.mark.parametrize("vocab_size", [5, 300, 4099])
@pytest.mark.parametrize("min_p", [None, 0.02])
def test_cut_offs_together_keep_what_the_reference_keeps(
    ops: SamplingOps, vocab_size: int, min_p: float | None
):
    logits = 2 * normal(12, vocab_size, seed=2)
    for top_k in ((0,), (40,), (3, 0, 500)):
        for top_p in (None, 0.7, 1.0):
            how = settings(logits, top_k=top_k, top_p=top_p, min_p=min_p)
            expected = reference_sampling.cut_unlikely(logits, **how)
            assert torch.equal(ops.cut_unlikely(logits.clone(), **how), expected)


@pytest.mark.parametrize("top_k", [(0,), (2,), (6,), (30,)])
@pytest.mark.parametrize("top_p", [None, 0.5, 0.9])
def test_ties_and_impossible_tokens_are_kept_as_by_the_reference(
    ops: SamplingOps, top_k: Sequence[int], top_p: float | None
):
    logits = torch.full((4, 40), -torch.inf)
    logits[0, 3:30:2] = 1.0
    logits[1, ::3] = torch.arange(14).float() // 4
    logits[2, 7] = -3.0
    logits[3] = torch.arange(40).float().remainder(3)
    how = settings(logits, top_k=top_k, top_p=top_p)
    expected = reference_sampling.cut_unlikely(logits, **how)
    assert torch.equal(ops.cut_unlikely(logits.clone(), **how), expected)


def test_rows_without_a_possible_token_or_with_nan_do_no_harm(ops: SamplingOps):
    logits = normal(3, 5000, seed=3)
    logits[0], logits[1, 17::7] = -torch.inf, torch.nan
    how = settings(logits, top_k=(0, 0, 50), top_p=0.9)
    alone = ops.cut_unlikely(logits[2:].clone(), **settings(logits[2:], top_k=(50,), top_p=0.9))
    assert torch.equal(ops.cut_unlikely(logits, **how)[2:], alone)


def test_no_rows_are_cut(ops: SamplingOps):
    logits = torch.zeros(0, 9)
    assert ops.cut_unlikely(logits, **settings(logits, top_k=(3,), top_p=0.9)).shape == (0, 9)
