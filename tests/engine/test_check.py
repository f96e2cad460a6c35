"""The scheduler's check() finds every corruption that it claims to find."""

from __future__ import annotations

import pytest

from tests.builders import make_engine, params
from toolkit.engine import Engine
from toolkit.errors import InvariantViolation


def corrupt_runs_and_waits(engine: Engine) -> None:
    scheduler = engine.scheduler
    scheduler._queue.push(scheduler.running[0], scheduler.policy, scheduler._view(0.0))


def corrupt_waits_but_is_unknown(engine: Engine) -> None:
    del engine.scheduler._requests[engine.scheduler.waiting[0].id]


def corrupt_neither_runs_nor_waits(engine: Engine) -> None:
    engine.scheduler._running.pop()


def corrupt_left_the_line(engine: Engine) -> None:
    engine.scheduler._queue.remove(engine.scheduler.waiting[0])


def corrupt_runs_without_blocks(engine: Engine) -> None:
    engine.cache.close(engine.scheduler.running[0])


def corrupt_nothing_to_compute(engine: Engine) -> None:
    request = engine.scheduler.running[0]
    request.num_computed_tokens = request.num_tokens


def corrupt_computed_beyond_its_blocks(engine: Engine) -> None:
    request = engine.scheduler.running[0]
    request.token_ids += [1] * 40
    request.num_computed_tokens = 30


def corrupt_the_pool(engine: Engine) -> None:
    engine.cache.pool._empty.pop()


CORRUPTIONS = {
    key.removeprefix("corrupt_").replace("_", " "): value
    for key, value in list(globals().items())
    if key.startswith("corrupt_")
}


@pytest.fixture
def engine() -> Engine:
    """Two requests run and one waits."""
    engine = make_engine(max_num_seqs=2)
    for index in range(3):
        engine.add([index] * 5, params(5))
    engine.step()
    engine.scheduler.check()
    return engine


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_check_finds_a_corruption(how: str, engine: Engine):
    CORRUPTIONS[how](engine)
    with pytest.raises(InvariantViolation):
        engine.scheduler.check()


def test_check_finds_too_many_that_run():
    engine = make_engine(max_num_seqs=1)
    engine.add([1], params(5))
    engine.step()
    object.__setattr__(engine.scheduler.config, "max_num_seqs", 0)
    with pytest.raises(InvariantViolation, match="max_num_seqs"):
        engine.scheduler.check()


def test_a_step_checks_itself_when_asked_to(engine: Engine):
    corrupt_the_pool(engine)
    with pytest.raises(InvariantViolation):
        engine.step()
