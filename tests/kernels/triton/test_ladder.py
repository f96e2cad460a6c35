"""The rungs from naive attention to the op: right, counted and compiled."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.kernels.paged import assert_right, make_paged
from toolkit.kernels.triton.ladder import RUNGS, Rung, attend
from toolkit.kernels.triton.ladder_facts import Batch, compile_rungs, demand

each_rung = pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)


@each_rung
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_rung_attends(rung: Rung, dtype: torch.dtype, device: torch.device):
    case = make_paged([1, 16, 70, 300], [1] * 4, head_dim=32, block_size=16, dtype=dtype)
    tables, _, contexts = case.where
    tensors = (case.query, case.key_cache, case.value_cache, tables, contexts)
    out = attend(rung, *(x.to(device) for x in tensors), scale=0.2)
    assert_right(out.cpu(), case, 0.2)


def test_each_rung_has_one_more_lever():
    for lower, upper in pairwise(RUNGS):
        assert sum(upper[1:]) == sum(lower[1:]) + 1
        assert all(was <= now for was, now in zip(lower[1:], upper[1:], strict=True))


def test_the_work_of_a_rung_is_counted():
    batch = Batch(num_requests=2, context=1000, table_positions=4096)
    naive, grouped, tiled, skipping, _, split = (demand(rung, batch) for rung in RUNGS)
    assert batch.kv_bytes == 2 * 2 * 2 * 1000 * 8 * 128
    assert naive.num_bytes == 4 * grouped.num_bytes == 4 * batch.kv_bytes
    assert (naive.num_programs, grouped.num_programs, split.num_programs) == (64, 16, 64)
    steps = [naive.num_steps, grouped.num_steps, tiled.num_steps, skipping.num_steps]
    assert steps == [256, 256, 64, 16]
    assert split.num_steps == 4
    assert split.num_bytes > batch.kv_bytes
    assert naive.flops == split.flops == 4 * 2 * 1000 * 32 * 128
    assert grouped.intensity == 4.0


@pytest.mark.slow
def test_rungs_compile_and_only_the_naive_does_without_tensor_cores():
    rows = compile_rungs()
    assert {row["rung"] for row in rows} == {rung.name for rung in RUNGS}
    assert [row for row in rows if row["spilled_bytes"]] == []
    for row in rows:
        is_plain = row["rung"] == "naive" or row["name"] == "_merge_splits_kernel"
        assert bool(row["products"]) != is_plain
