"""Attention over a paged cache against one query and one head at a time in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.numerics import DTYPES, assert_close
from tests.kernels.paged import Paged, make_paged
from toolkit.kernels import Ops
from toolkit.kernels.reference import attention_probs, mix_values


def attend(ops: Ops, case: Paged, scale: float = 0.25, **form: Any) -> Tensor:
    return ops.paged_attention(
        case.query, case.key_cache, case.value_cache, *case.where, scale=scale, **form
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("context", [1, 3, 4, 5, 8, 9])
def test_a_single_token_sees_its_whole_context(ops: Ops, dtype: torch.dtype, context: int):
    case = make_paged([context, 7], [1, 1], dtype=dtype)
    assert_close(attend(ops, case), case.expected(0.25))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("context", "num_queries"), [(2, 2), (4, 4), (5, 5), (9, 3), (8, 7)])
def test_a_chunk_is_causal_after_its_cached_context(
    ops: Ops, dtype: torch.dtype, context: int, num_queries: int
):
    case = make_paged([context], [num_queries], dtype=dtype)
    assert_close(attend(ops, case), case.expected(0.25))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_queries", [[1, 5, 1, 2], [3, 1, 1, 9], [1, 0, 6, 1], [2, 1, 0, 0]])
def test_chunks_and_single_tokens_mix_in_any_order(
    ops: Ops, dtype: torch.dtype, num_queries: list[int]
):
    case = make_paged([6, 5, 11, 9], num_queries, dtype=dtype)
    assert_close(attend(ops, case), case.expected(0.25))


@pytest.mark.parametrize("num_queries", [[], [0], [0, 0]])
def test_an_empty_batch_attends_to_nothing(ops: Ops, num_queries: list[int]):
    case = make_paged([3] * len(num_queries), num_queries)
    assert attend(ops, case).shape == (0, 4, 16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_kv_heads", "group"), [(1, 1), (3, 1), (2, 2), (1, 3), (2, 4), (1, 7), (2, 8)]
)
def test_heads_of_a_group_share_their_keys(
    ops: Ops, dtype: torch.dtype, num_kv_heads: int, group: int
):
    case = make_paged([5, 9], [1, 6], num_kv_heads=num_kv_heads, group=group, dtype=dtype)
    assert_close(attend(ops, case), case.expected(0.25))


@pytest.mark.parametrize("head_dim", [5, 20, 64, 128])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_heads_and_blocks_have_any_size(ops: Ops, head_dim: int, block_size: int):
    case = make_paged([17, 15, 16], [1, 4, 1], head_dim=head_dim, block_size=block_size)
    scale = head_dim**-0.5
    assert_close(attend(ops, case, scale), case.expected(scale))


FORMS = {
    "window of one": {"window": 1},
    "window within a block": {"window": 3},
    "window of a block and one": {"window": 5},
    "window past the context": {"window": 100},
    "alibi": {"alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625])},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 3.0, 0.0])},
    "all": {
        "window": 4,
        "alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625]),
        "softcap": 2.0,
        "sinks": torch.tensor([0.5, -1.0, 3.0, 0.0]),
    },
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_scores_can_be_bounded_biased_and_windowed(
    ops: Ops, dtype: torch.dtype, form: dict[str, Any]
):
    case = make_paged([6, 5, 11, 9], [1, 5, 4, 1], dtype=dtype)
    assert_close(attend(ops, case, **form), case.expected(0.25, **form))


def test_a_row_does_not_depend_on_its_batch_mates(ops: Ops):
    case = make_paged([6, 13], [1, 1])
    tables, _, context_lens = case.where
    alone = ops.paged_attention(
        case.query[:1],
        case.key_cache,
        case.value_cache,
        tables[:1],
        torch.tensor([0, 1], dtype=torch.int32),
        context_lens[:1],
        scale=0.25,
    )
    torch.testing.assert_close(attend(ops, case)[:1], alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_probabilities_shown_are_those_that_weigh_the_values(
    ops: Ops, dtype: torch.dtype, form: dict[str, Any]
):
    case = make_paged([6, 5, 11, 9], [1, 5, 4, 1], dtype=dtype)
    probs = attention_probs(case.query, case.key_cache, *case.where, scale=0.25, **form)
    assert probs.shape == (11, 4, 11)
    assert probs[0, :, 6:].eq(0).all()
    assert_close(mix_values(probs, case.value_cache, *case.where), case.expected(0.25, **form))


def test_probabilities_sum_to_one_without_sinks():
    case = make_paged([6, 5], [1, 5])
    probs = attention_probs(case.query, case.key_cache, *case.where, scale=0.25)
    torch.testing.assert_close(probs.sum(-1), torch.ones(6, 4))
