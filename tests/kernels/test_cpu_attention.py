"""Attention in C++ at every level that this machine has, against float64 and against itself."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.paged import (
    ATTENTION_BOUNDS,
    FORMS,
    Paged,
    assert_right,
    make_paged,
    oracle,
)
from toolkit.kernels.cpu.attention import paged_attention
from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import LEVELS, Level, cpu_flags
from toolkit.kernels.cpu.library import Library


@pytest.fixture(scope="session", params=LEVELS, ids=lambda level: level.name)
def library(request: pytest.FixtureRequest) -> Library:
    level: Level = request.param
    if not level.cpu_flags <= cpu_flags():
        pytest.skip(f"this CPU has no {level.name}")
    try:
        loaded = Library(compile_library(level))
    except CompileError as error:
        pytest.skip(str(error))
    loaded.set_num_threads(2)
    return loaded


def attend(library: Library, case: Paged, scale: float, **form: Any) -> Tensor:
    caches = case.key_cache, case.value_cache
    return paged_attention(library, case.query, *caches, *case.where, scale=scale, **form)


def assert_library_right(library: Library, case: Paged, **form: Any) -> None:
    scale = case.query.shape[-1] ** -0.5
    assert_right(attend(library, case, scale, **form), case, scale, **form)


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
@pytest.mark.parametrize("block_size", [1, 4, 15, 16, 17])
def test_chunks_and_single_tokens_are_right_at_any_block_size(
    library: Library, dtype: torch.dtype, block_size: int
):
    contexts = [1, 16, 17, 257, 40, 300]
    case = make_paged(contexts, [1, 1, 2, 1, 40, 44], block_size=block_size, dtype=dtype)
    assert_library_right(library, case)


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
@pytest.mark.parametrize(
    ("num_kv_heads", "group"), [(3, 1), (2, 2), (1, 3), (2, 4), (1, 8), (1, 17), (1, 64)]
)
def test_groups_of_any_size_share_their_keys(
    library: Library, dtype: torch.dtype, num_kv_heads: int, group: int
):
    case = make_paged([9, 33], [1, 7], num_kv_heads=num_kv_heads, group=group, dtype=dtype)
    assert_library_right(library, case)


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
@pytest.mark.parametrize("head_dim", [5, 20, 32, 40, 64, 80, 96, 128, 200, 256])
def test_heads_of_any_size_are_right(library: Library, dtype: torch.dtype, head_dim: int):
    case = make_paged([20, 37], [1, 21], head_dim=head_dim, block_size=16, dtype=dtype)
    assert_library_right(library, case)


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_scores_is_right(library: Library, dtype: torch.dtype, form: dict[str, Any]):
    case = make_paged([6, 530, 300], [1, 1, 100], block_size=16, dtype=dtype)
    assert_library_right(library, case, **form)


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
def test_a_long_prompt_in_one_chunk_is_right(library: Library, dtype: torch.dtype):
    case = make_paged([700], [700], num_kv_heads=1, head_dim=64, block_size=16, dtype=dtype)
    assert_library_right(library, case)


@pytest.mark.parametrize("num_queries", [[], [0], [0, 0], [0, 3, 0]])
def test_requests_without_queries_are_passed_over(library: Library, num_queries: list[int]):
    case = make_paged([5] * len(num_queries), num_queries)
    out = attend(library, case, 0.25)
    assert out.shape == case.query.shape
    torch.testing.assert_close(out.double(), oracle(case, 0.25), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ATTENTION_BOUNDS)
def test_a_query_may_be_part_of_a_wider_matrix(library: Library, dtype: torch.dtype):
    case = make_paged([40, 20], [11, 1], dtype=dtype)
    expected = attend(library, case, 0.25)
    fused = torch.zeros(12, 4 * 16 + 32, dtype=dtype)
    fused[:, :64] = case.query.flatten(1)
    case.query = fused[:, :64].unflatten(1, (4, 16))
    assert torch.equal(attend(library, case, 0.25), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [{}, FORMS["all"], FORMS["window over tiles"]])
def test_batch_and_chunks_change_no_bit(library: Library, dtype: torch.dtype, form: dict[str, Any]):
    whole = make_paged([620, 257, 64, 15, 3], [620, 257, 64, 15, 3], head_dim=40, dtype=dtype)
    tables, starts, _ = whole.where
    run = partial(paged_attention, library, scale=0.2, batch_invariant=True, **form)
    expected = run(whole.query, whole.key_cache, whole.value_cache, *whole.where)
    random = Random(0)
    for _ in range(200):
        requests = random.choices(range(5), k=random.randint(1, 4))
        rows, counts, contexts = [], [0], []
        for request in requests:
            first, last = starts[request : request + 2].tolist()
            stop = random.randint(1, last - first)
            count = random.choice([1, 1, random.randint(1, min(stop, 90))])
            rows += range(first + stop - count, first + stop)
            counts.append(counts[-1] + count)
            contexts.append(stop)
        where = (
            tables[requests],
            torch.tensor(counts, dtype=torch.int32),
            torch.tensor(contexts, dtype=torch.int32),
        )
        out = run(whole.query[rows], whole.key_cache, whole.value_cache, *where)
        assert torch.equal(out, expected[rows])
