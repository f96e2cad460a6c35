"""Whatever arrives, fails or is aborted, under any policy: every request gets its due."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings

from tests.engine.scenarios import (
    WORLDS,
    Arrival,
    FirstIsVictim,
    NeverAdmits,
    Run,
    World,
    kept_by,
    play,
)
from toolkit.request import FinishReason, Request, Status

FAST = settings(
    max_examples=250,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining takes minutes
)
# A world that fails here is best made an @example above, and shrunk there.
LONG = settings(FAST, max_examples=750, derandomize=False, phases=[Phase.generate])

TIGHT = World(
    [Arrival(step=0, prompt=[0, 1, 2, 0, 1], max_tokens=8) for _ in range(4)],
    num_blocks=4,
    block_size=4,
    max_num_seqs=4,
    max_num_batched_tokens=8,
)
UNWISE = World(
    [Arrival(step=0, prompt=[0, 1, 2, 0, 1], max_tokens=6, n=3, stops_after=2)],
    num_blocks=5,
    block_size=2,
    max_num_seqs=4,
    max_num_batched_tokens=8,
    policy=FirstIsVictim,
    new_policies={3: NeverAdmits},
)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Broken steps and overruled policies are the point here, and logged by the thousand."""
    logger = logging.getLogger("toolkit.engine")
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(logging.NOTSET)


def check_everything(run: Run) -> None:
    for guest, sample in run.samples:
        check_outputs(sample, guest.promised[sample.sample_index])
        check_stream(sample, guest.pieces_of(sample.sample_index))
        check_times(sample)
    assert kept_by(run.engine) == {}
    check_blocks(run)


def check_outputs(sample: Request, promised: list[int]) -> None:
    tokens = sample.output_token_ids
    assert sample.is_finished
    if sample.status is Status.FINISHED:
        assert tokens == promised
        stopped = bool(set(tokens) & set(sample.params.stop_token_ids or ()))
        assert sample.finish_reason is (FinishReason.STOP if stopped else FinishReason.LENGTH)
    else:
        assert tokens == promised[: len(tokens)]
        assert len(tokens) < len(promised)
        failed = sample.status is Status.FAILED
        assert sample.finish_reason is (FinishReason.ERROR if failed else FinishReason.ABORT)
        assert (sample.error is not None) == failed


def check_stream(sample: Request, pieces: list) -> None:
    assert [token for piece in pieces for token in piece.token_ids] == sample.output_token_ids
    ends = [piece.finish_reason for piece in pieces]
    assert ends[:-1] == [None] * (len(ends) - 1)
    assert ends[-1] == str(sample.finish_reason)


def check_times(sample: Request) -> None:
    moments = [sample.arrival_s, sample.queued_s, sample.first_scheduled_s]
    moments += [sample.first_token_s, sample.last_token_s, sample.finished_s]
    known = [moment for moment in moments if moment is not None]
    assert all(earlier <= later for earlier, later in pairwise(known))
    assert all(seconds > -1e-9 for seconds in sample.waits_s.values())
    until_s = sample.finished_s if sample.first_token_s is None else sample.first_token_s
    parts_s = [sample.tokenize_s, *sample.waits_s.values(), sample.prefill_s]
    parts_s += [sample.preempted_before_first_s, sample.emit_s]
    assert math.isclose(sum(parts_s), until_s - sample.arrival_s, abs_tol=1e-9)
    assert sample.preempted_s >= sample.preempted_before_first_s >= 0.0


def check_blocks(run: Run) -> None:
    pool = run.engine.cache.pool
    run.engine.reset_prefix_cache()
    assert pool.num_free - pool.num_cached == run.world.num_blocks
    run.engine.scheduler.check()


@FAST
@given(WORLDS)
@example(TIGHT)
@example(UNWISE)
def test_every_request_gets_what_it_was_promised(world: World):
    check_everything(play(world))


@settings(FAST, max_examples=80)
@given(WORLDS)
@example(TIGHT)
def test_tokens_computed_again_are_counted_exactly(world: World):
    run = play(world)
    for _, sample in run.samples:
        if sample.status is Status.FINISHED:
            assert sample.num_recomputed_tokens == run.recomputed[sample.id]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_request_gets_what_it_was_promised_in_thousands_of_worlds(part: int):
    @seed(part)
    @LONG
    @given(WORLDS)
    def in_each(world: World) -> None:
        check_everything(play(world))

    in_each()
