"""Attention in Triton against float64 and against itself."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.paged import ATTENTION_BOUNDS, FORMS, Paged, assert_right, make_paged
from toolkit.kernels.triton.attention import paged_attention

DTYPES = tuple(ATTENTION_BOUNDS)


def attend(device: torch.device, case: Paged, scale: float, **form: Any) -> Tensor:
    """Attend on the device and return the result on the CPU."""
    tensors = case.query, case.key_cache, case.value_cache, *case.where
    form = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in form.items()}
    return paged_attention(*(x.to(device) for x in tensors), scale=scale, **form).cpu()


def check(device: torch.device, case: Paged, **form: Any) -> None:
    scale = case.query.shape[-1] ** -0.5
    assert_right(attend(device, case, scale, **form), case, scale, **form)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [1, 15, 16, 17])
def test_chunks_and_single_tokens_mix_at_any_block_size(
    device: torch.device, dtype: torch.dtype, block_size: int
):
    contexts, num_queries = [1, 64, 65, 257, 40], [1, 1, 2, 1, 40]
    check(device, make_paged(contexts, num_queries, block_size=block_size, dtype=dtype))


@pytest.mark.parametrize(
    ("contexts", "num_queries"),
    [
        ([63], [63]),  # tiles of 64 keys in bfloat16, of 32 in float32, and one more or less
        ([64], [64]),
        ([65], [65]),
        ([129], [33]),
        ([255, 256, 257], [1, 1, 1]),  # splits of 256 keys
        ([512, 513, 31, 32, 33], [1, 1, 1, 1, 1]),
        ([300, 70], [0, 2]),  # as many tokens as requests, and not single
        ([9, 20, 30, 40], [0, 3, 0, 1]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_and_splits_break_anywhere(
    device: torch.device, dtype: torch.dtype, contexts: list[int], num_queries: list[int]
):
    check(device, make_paged(contexts, num_queries, head_dim=32, block_size=16, dtype=dtype))


@pytest.mark.parametrize(
    ("num_kv_heads", "group"), [(3, 1), (2, 2), (1, 3), (2, 4), (1, 7), (1, 16), (1, 17), (1, 64)]
)
def test_groups_of_any_size_share_their_keys(device: torch.device, num_kv_heads: int, group: int):
    sizes = {"num_kv_heads": num_kv_heads, "group": group, "block_size": 16}
    check(device, make_paged([9, 66], [1, 7], dtype=torch.bfloat16, **sizes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [5, 32, 64, 80, 96, 128, 256])
def test_heads_of_any_size_are_right(device: torch.device, dtype: torch.dtype, head_dim: int):
    case = make_paged([20, 37], [1, 21], head_dim=head_dim, block_size=16, dtype=dtype)
    check(device, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_scores_is_right(
    device: torch.device, dtype: torch.dtype, form: dict[str, Any]
):
    check(device, make_paged([6, 280, 150], [1, 1, 30], block_size=16, dtype=dtype), **form)


@pytest.mark.parametrize("num_queries", [[], [0], [0, 0]])
def test_an_empty_batch_attends_to_nothing(device: torch.device, num_queries: list[int]):
    case = make_paged([5] * len(num_queries), num_queries)
    assert attend(device, case, 0.25).shape == (0, 4, 16)


def test_a_request_without_context_gets_zeros(device: torch.device):
    """As the padding of a captured graph has."""
    case = make_paged([40, 1, 30, 1], [1, 1, 6, 2], block_size=16)
    tables, starts, _ = case.where
    expected = attend(device, case, 0.25)
    case.where = tables, starts, torch.tensor([40, 0, 30, 0], dtype=torch.int32)
    actual = attend(device, case, 0.25)
    assert torch.equal(actual[[0, *range(2, 8)]], expected[[0, *range(2, 8)]])
    assert actual[[1, 8, 9]].eq(0).all()


def test_a_query_may_be_part_of_a_wider_matrix(device: torch.device):
    case = make_paged([40, 300], [11, 1], dtype=torch.bfloat16)
    expected = attend(device, case, 0.25)
    fused = torch.zeros(12, 4 * 16 + 32, dtype=torch.bfloat16)
    fused[:, :64] = case.query.flatten(1)
    tensors = [x.to(device) for x in (fused, case.key_cache, case.value_cache, *case.where)]
    query = tensors[0][:, :64].unflatten(1, (4, 16))
    assert torch.equal(paged_attention(query, *tensors[1:], scale=0.25).cpu(), expected)


@pytest.mark.slow
def test_a_long_context_takes_longer_splits(device: torch.device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toolkit.kernels.triton.attention_splits.MAX_SPLITS", 2)
    check(device, make_paged([513, 900], [1, 1], block_size=16))


@pytest.mark.slow
def test_few_programs_may_share_many_splits(device: torch.device, monkeypatch: pytest.MonkeyPatch):
    case = make_paged([600, 300], [1, 1], block_size=16)
    expected = attend(device, case, 0.25)
    monkeypatch.setattr("toolkit.kernels.triton._tuning._MAX_PROGRAMS", 8)
    assert torch.equal(attend(device, case, 0.25), expected)


@pytest.mark.slow
def test_a_single_token_gets_the_same_bits_in_any_batch(device: torch.device):
    case = make_paged([270, 600, 33, 40], [1, 1, 1, 6], block_size=16, dtype=torch.bfloat16)
    expected = attend(device, case, 0.25)
    tables, _, contexts = case.where
    for request, width in ((0, 17), (0, 38), (1, 38), (2, 3)):
        one = slice(request, request + 1)
        where = tables[one, :width], torch.tensor([0, 1], dtype=torch.int32), contexts[one]
        alone = Paged(case.query[one], [], [], case.key_cache, case.value_cache, where)
        assert torch.equal(attend(device, alone, 0.25), expected[one])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "form"),
    [(torch.float32, {}), (torch.bfloat16, FORMS["all"])],
    ids=["float32", "bfloat16, all"],
)
def test_batch_and_chunks_change_no_bit(
    device: torch.device, dtype: torch.dtype, form: dict[str, Any]
):
    whole = make_paged([75, 64, 3], [75, 64, 3], num_kv_heads=1, group=4, dtype=dtype)
    tables, starts, _ = whole.where
    # The interpreter multiplies with NumPy, whose sums depend on a row's place in the matrix.
    # There, a chunk starts where a program's rows may: 16 tokens of 4 heads are 64 rows.
    grain = 1 if device.type == "cuda" else 16
    run = partial(attend, device, scale=0.2, batch_invariant=True, **form)
    expected = run(whole)
    random = Random(0)
    for _ in range(5):
        requests = random.choices(range(3), k=random.randint(1, 3))
        rows, counts, contexts = [], [0], []
        for request in requests:
            first, last = starts[request : request + 2].tolist()
            stop = random.randint(1, last - first)
            count = random.choice([1, random.randint(1, stop)])
            count += (stop - count) % grain
            rows += range(first + stop - count, first + stop)
            counts.append(counts[-1] + count)
            contexts.append(stop)
        where = (
            tables[requests],
            torch.tensor(counts, dtype=torch.int32),
            torch.tensor(contexts, dtype=torch.int32),
        )
        part = Paged(whole.query[rows], [], [], whole.key_cache, whole.value_cache, where)
        assert torch.equal(run(part), expected[rows])


@pytest.mark.gpu
def test_a_captured_graph_attends_to_what_its_tensors_hold_later():
    """A launch reads no number from the device: a wait would end the capture with an error."""
    case = make_paged([300, 40, 600, 9], [1, 7, 1, 1], head_dim=128, dtype=torch.bfloat16)
    tensors = [x.cuda() for x in (case.query, case.key_cache, case.value_cache, *case.where)]
    paged_attention(*tensors, scale=0.25)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = paged_attention(*tensors, scale=0.25)
    for contexts in ([300, 40, 600, 9], [200, 33, 70, 2]):
        tensors[-1].copy_(torch.tensor(contexts, dtype=torch.int32))
        graph.replay()
        assert torch.equal(out, paged_attention(*tensors, scale=0.25))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("head_dim", "group"), [(64, 8), (128, 4), (256, 2)])
def test_large_tiles_are_right(dtype: torch.dtype, head_dim: int, group: int):
    """Sizes that fill every tile of the tuned shapes, and take too long under the interpreter."""
    sizes = {"group": group, "head_dim": head_dim, "block_size": 16}
    for contexts, num_queries in (([4096], [1500]), ([3000] * 20, [1] * 20), ([900] * 4, [90] * 4)):
        case = make_paged(contexts, num_queries, dtype=dtype, **sizes)
        for form in ({}, {"window": 1000}, {"softcap": 30.0}):
            check(torch.device("cuda"), case, **form)
