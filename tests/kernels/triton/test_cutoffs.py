"""Top-k, top-p and min-p in Triton: the sets that the torch version keeps.

A search takes many passes, and the interpreter its time: rows are few here, and of few programs.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import normal
from toolkit.kernels import reference_sampling
from toolkit.kernels.triton.cutoffs import cut_unlikely


def settings(
    logits: Tensor,
    *,
    top_k: Sequence[int] = (0,),
    top_p: Sequence[float] | None = None,
    min_p: Sequence[float] | None = None,
) -> dict:
    """The op's keywords, each repeated over the rows; top_k 0 is off."""
    num_rows, vocab_size = logits.shape
    limits = [min(k or vocab_size, vocab_size) for k in [*top_k] * num_rows][:num_rows]
    shares = [
        None if share is None else torch.tensor(([*share] * num_rows)[:num_rows])
        for share in (top_p, min_p)
    ]
    return {
        "top_k": torch.tensor(limits, dtype=torch.int64),
        "max_top_k": max(limits, default=0),
        "top_p": shares[0],
        "min_p": shares[1],
    }


def cut(logits: Tensor, how: dict, device: torch.device) -> Tensor:
    """Cut a copy on the device."""
    there = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in how.items()}
    return cut_unlikely(logits.clone().to(device), **there).cpu()


@pytest.mark.parametrize("vocab_size", [1, 5, 300, 4097])
def test_top_k_keeps_the_largest(vocab_size: int, device: torch.device):
    logits = normal(4, vocab_size, seed=0)
    how = settings(logits, top_k=(1, 50, 0, 700))
    assert torch.equal(cut(logits, how, device), reference_sampling.cut_unlikely(logits, **how))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 200.0])
@pytest.mark.parametrize("vocab_size", [1, 300, 4097])
def test_top_p_keeps_the_smallest_set_that_reaches_it(
    scale: float, vocab_size: int, device: torch.device
):
    """In float64; a set whose sum is within 1e-6 of p may have a token more or less."""
    logits = 5 + scale * normal(4, vocab_size, seed=1)
    shares = (1e-6, 0.3, 0.95, 0.9999)
    kept = cut(logits, settings(logits, top_p=shares), device) > -torch.inf
    probs = logits.double().softmax(dim=1)
    for row, top_p in enumerate(shares):
        threshold = logits[row][kept[row]].min()
        assert torch.equal(kept[row], logits[row] >= threshold)
        assert float(probs[row][kept[row]].sum()) > top_p - 1e-6
        # Without the tokens at the threshold, too little is left.
        assert float(probs[row][logits[row] > threshold].sum()) < top_p + 1e-6


@pytest.mark.parametrize("top_k", [(0,), (40,), (3, 0, 500)])
@pytest.mark.parametrize("min_p", [None, (0.02, 0.0, 0.5)])
def test_cut_offs_together_keep_what_the_reference_keeps(
    top_k: Sequence[int], min_p: Sequence[float] | None, device: torch.device
):
    logits = 2 * normal(3, 900, seed=2)
    for top_p in (None, (0.7, 1.0, 0.95)):
        how = settings(logits, top_k=top_k, top_p=top_p, min_p=min_p)
        expected = reference_sampling.cut_unlikely(logits, **how)
        assert torch.equal(cut(logits, how, device), expected)


@pytest.mark.parametrize(
    ("top_k", "top_p"), [((2, 6), None), ((0,), (0.5,)), ((30,), (0.9,)), ((6, 2), (0.5, 0.9))]
)
def test_ties_and_impossible_tokens_are_kept_as_by_the_reference(
    top_k: Sequence[int], top_p: Sequence[float] | None, device: torch.device
):
    logits = torch.full((5, 40), -torch.inf)
    logits[0, 3:30:2] = 1.0
    logits[1, ::3] = torch.arange(14).float() // 4
    logits[2, 7] = -3.0
    logits[3] = torch.arange(40).float().remainder(3)
    logits[4, ::2], logits[4, 1::2] = 0.0, -0.0
    how = settings(logits, top_k=top_k, top_p=top_p)
    assert torch.equal(cut(logits, how, device), reference_sampling.cut_unlikely(logits, **how))


def test_numbers_far_apart_are_cut_as_others(device: torch.device):
    """Processors forbid tokens by the least float32 as well as by -inf."""
    logits = normal(3, 200, seed=4)
    logits[:, ::2] = torch.finfo(torch.float32).min
    logits[1, 7] = 1e30
    how = settings(logits, top_k=(0, 20, 150), top_p=(0.8, 1.0, 0.8))
    assert torch.equal(cut(logits, how, device), reference_sampling.cut_unlikely(logits, **how))


def test_rows_without_a_possible_token_or_with_nan_do_no_harm(device: torch.device):
    logits = normal(3, 500, seed=3)
    logits[0], logits[1, 17::7] = -torch.inf, torch.nan
    how = settings(logits, top_k=(0, 0, 50), top_p=(0.9,))
    alone = cut(logits[2:], settings(logits[2:], top_k=(50,), top_p=(0.9,)), device)
    assert torch.equal(cut(logits, how, device)[2:], alone)


def test_rows_may_lie_apart_and_none_are_cut(device: torch.device):
    logits = normal(2, 600, seed=5)[:, 100:400]
    how = settings(logits, top_k=(10,))
    assert torch.equal(cut(logits, how, device), reference_sampling.cut_unlikely(logits, **how))
    nothing = torch.zeros(0, 9)
    assert cut(nothing, settings(nothing, top_k=(3,), top_p=(0.9,)), device).shape == (0, 9)


def test_a_row_keeps_the_same_tokens_in_every_batch(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
):
    """Alone it has six programs here, among others two: what they add up is the same."""
    monkeypatch.setattr("toolkit.kernels.triton.cutoffs._NUM_PROGRAMS", 6)
    logits = 3 * normal(3, 9000, seed=6)
    how = {"top_k": (0, 400, 0), "top_p": (0.9, 0.95, 0.5), "min_p": (0.0, 0.001, 0.0)}
    together = cut(logits, settings(logits, **how), device)
    for row in range(3):
        one = {name: values[row : row + 1] for name, values in how.items()}
        alone = cut(logits[row : row + 1], settings(logits[row : row + 1], **one), device)
        assert torch.equal(alone[0], together[row])
