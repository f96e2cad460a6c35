"""The pooler on its own: which rows it wants, and what it makes of them."""

from __future__ import annotations

from struct import unpack
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.engine.plan import ScheduledChunk, StepPlan
from toolkit.errors import InvalidParameter, RequestFailed
from toolkit.request import PoolingParams, Request, SamplingParams
from toolkit.runtime.pooling import Pooler

WIDTH = 6
LENGTH = 7
STATES = torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5


def pooler_for(*requests: Request) -> Pooler:
    pooler = Pooler(WIDTH)
    for request in requests:
        pooler.start(request)
    return pooler


def request(name: str = "r", **pooling: Any) -> Request:
    return Request(
        id=name,
        prompt_token_ids=tuple(range(LENGTH)),
        params=SamplingParams(),
        arrival_index=0,
        arrival_s=0.0,
        seed=0,
        pooling=PoolingParams(**pooling) if pooling else None,
    )


def plan(*chunks: tuple[str, int, int]) -> StepPlan:
    return StepPlan(
        step=0,
        chunks=tuple(
            ScheduledChunk(name, start, end, tuple(range(start, end)), (), False, False)
            for name, start, end in chunks
        ),
        num_tokens=sum(end - start for _, start, end in chunks),
    )


def run(pooler: Pooler, step: StepPlan) -> dict[str, list[float]]:
    """Pool a step in which every request has the same states."""
    flat = torch.cat([STATES[chunk.start : chunk.end] for chunk in step.chunks])
    pooled = pooler.plan(step)
    assert pooled is not None
    rows = pooled.rows_after(torch.tensor([], dtype=torch.int64))
    vectors, errors = pooler.take(pooled, flat[rows])
    assert not errors
    return {name: list(unpack(f"<{len(v) // 4}f", v)) for name, v in vectors.items()}


def expected(pooling: str) -> Tensor:
    return {"last": STATES[-1], "cls": STATES[0], "mean": STATES.mean(0)}[pooling]


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("ends", [[7], [1, 7], [3, 4, 7], [6, 7]])
def test_chunks_give_what_the_whole_prompt_gives(pooling: str, ends: list[int]):
    pooler = pooler_for(request(pooling=pooling, normalize=False), request("other"))
    found: dict[str, list[float]] = {}
    for start, end in zip([0, *ends], ends, strict=False):
        assert not found
        found = run(pooler, plan(("other", 0, 2), ("r", start, end), ("other", 2, 3)))
    assert found["r"] == pytest.approx(expected(pooling).tolist(), abs=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("restart", [0, 2, 4])
def test_what_is_computed_again_is_pooled_once(pooling: str, restart: int):
    pooler = pooler_for(request(pooling=pooling, normalize=False))
    for start, end in ((0, 3), (3, 5)):
        assert run(pooler, plan(("r", start, end))) == {}
    assert run(pooler, plan(("r", restart, 6))) == {}
    assert run(pooler, plan(("r", 6, 7)))["r"] == pytest.approx(
        expected(pooling).tolist(), abs=1e-6
    )


def test_the_beginning_is_kept_and_then_scaled():
    pooler = pooler_for(request(pooling="mean", dimensions=4))
    found = torch.tensor(run(pooler, plan(("r", 0, 7)))["r"])
    kept = expected("mean")[:4]
    assert torch.allclose(found, kept / kept.norm(), atol=1e-6)
    assert float(found.norm()) == pytest.approx(1.0, abs=1e-6)


def test_more_numbers_than_a_state_has_are_refused():
    with pytest.raises(InvalidParameter, match="dimensions=7 is more than the 6") as caught:
        pooler_for(request(pooling="last", dimensions=7))
    assert caught.value.param == "dimensions"


def test_only_rows_that_are_pooled_are_wanted():
    pooler = pooler_for(
        request("mean", pooling="mean"),
        request("last", pooling="last"),
        request("cls", pooling="cls"),
    )
    step = plan(("text", 0, 2), ("mean", 0, 3), ("last", 0, 6), ("cls", 0, 7), ("text", 2, 3))
    pooled = pooler.plan(step)
    assert pooled is not None
    assert pooled.rows_after(torch.tensor([1, 18])).tolist() == [1, 18, 2, 3, 4, 11]
    step = plan(("text", 0, 2), ("last", 6, 7))
    pooled = pooler.plan(step)
    assert pooled is not None
    assert pooled.rows == [2]
    assert pooler.plan(plan(("text", 0, 2))) is None
    assert pooler_for(request("text")).plan(step) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_prompt_whose_states_are_not_finite_fails_alone(bad: float):
    pooler = pooler_for(request("a", pooling="mean"), request("b", pooling="mean"))
    pooled = pooler.plan(plan(("a", 0, 7), ("b", 0, 7)))
    assert pooled is not None
    states = torch.cat((STATES, STATES))
    states[3, 2] = bad
    vectors, errors = pooler.take(pooled, states)
    assert set(vectors) == {"b"}
    assert isinstance(errors["a"], RequestFailed)


def test_a_vector_of_zeros_stays_one():
    pooler = pooler_for(request(pooling="last"))
    pooled = pooler.plan(plan(("r", 0, 7)))
    assert pooled is not None
    vectors, errors = pooler.take(pooled, torch.zeros(1, WIDTH))
    assert not errors
    assert unpack("<6f", vectors["r"]) == (0.0,) * 6


def test_a_request_that_is_forgotten_leaves_nothing():
    pooler = pooler_for(request(pooling="mean"))
    run(pooler, plan(("r", 0, 3)))
    pooler.forget("r")
    assert pooler.plan(plan(("r", 3, 7))) is None
    pooler.forget("r")
