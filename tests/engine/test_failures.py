"""What breaks: a runner, a stream, an observer. Only its own requests suffer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.builders import LedgerRunner, expected_output, make_engine, params
from tests.engine.deadline import within_deadline
from tests.engine.scenarios import kept_by
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine, StepPlan, StepResult
from toolkit.engine.events import (
    BlockFreed,
    BlockTaken,
    Event,
    Finished,
    RequestAdded,
    Scheduled,
    StepFinished,
    StepStarted,
    TokenSampled,
)
from toolkit.engine.streams import Stream
from toolkit.errors import EngineClosed, InvalidRequest
from toolkit.request import OutputPiece, Request, Status


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("toolkit.engine")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def check_it_serves(engine: Engine, prompt: list[int] | None = None) -> None:
    """An engine is well if it keeps its invariants, holds nothing and gets an answer right."""
    engine.scheduler.check()
    prompt = prompt or [31, 32, 33, 34, 35, 36]
    request = engine.add(prompt, params(3, n=2))
    engine.run_until_idle()
    assert [sample.output_token_ids for sample in request.samples] == [
        expected_output(prompt, 3, index) for index in range(2)
    ]
    assert kept_by(engine) == {}


# ---- the runner


def test_when_the_machine_breaks_only_the_requests_of_that_step_end():
    engine = make_engine(max_num_seqs=2)
    engine.runner.fail_steps = {1}
    requests = [engine.add([i] * 3, params(4)) for i in range(4)]
    engine.run_until_idle()
    assert [request.status for request in requests] == [Status.FAILED] * 2 + [Status.FINISHED] * 2
    for request in requests[:2]:
        assert isinstance(request.error, RuntimeError)
        assert request.output.error is request.error
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 1)
    check_it_serves(engine)


def test_blocks_that_a_broken_step_was_to_fill_are_not_found_later():
    engine = make_engine()
    engine.runner.fail_steps = {0}
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    engine.add(prompt, params(2))
    engine.run_until_idle()
    again = engine.add(prompt, params(2))
    engine.run_until_idle()
    assert again.num_cached_tokens == 0
    assert again.output_token_ids == expected_output(prompt, 2)


def test_a_request_that_fails_alone_leaves_its_batch_mates_alone():
    engine = make_engine()
    bad, good = engine.add([1], params(4)), engine.add([2], params(4))
    engine.step()
    engine.runner.fail_requests.add(bad.id)
    engine.run_until_idle()
    assert bad.status is Status.FAILED
    assert bad.output_token_ids == expected_output([1], 1)
    assert good.output_token_ids == expected_output([2], 4)
    check_it_serves(engine)


def test_a_request_the_runner_refuses_leaves_nothing_behind():
    engine = make_engine()
    with pytest.raises(InvalidRequest, match="vocabulary"):
        engine.add([99], params(1, n=3))
    assert kept_by(engine) == {}
    check_it_serves(engine)


class RefusesTheThird(LedgerRunner):
    """Finds out late that it cannot serve a request."""

    def prepare(self, request: Request) -> None:
        if request.sample_index == 2:
            raise InvalidRequest("three are too many", param="n")
        super().prepare(request)


def test_samples_prepared_before_one_was_refused_are_released():
    engine = make_engine()
    engine.runner = RefusesTheThird(4)
    with pytest.raises(InvalidRequest, match="too many"):
        engine.add([1], params(1, n=3))
    assert kept_by(engine) == {}


class ForgetfulRunner(LedgerRunner):
    """Brings neither a token nor an error for the first request."""

    def run(self, plan: StepPlan) -> StepResult:
        tokens = dict(super().run(plan).tokens)
        tokens.pop("req-0", None)
        return StepResult(tokens=tokens)


def test_a_request_without_a_result_fails_instead_of_waiting_for_ever():
    config = EngineConfig(
        cache=CacheConfig(num_blocks=4, block_size=4), scheduler=SchedulerConfig(max_model_len=16)
    )
    engine = Engine(ForgetfulRunner(4), config)
    forgotten, other = engine.add([1], params(3)), engine.add([2], params(3))
    for _ in range(10):
        if not engine.scheduler.has_work:
            break
        engine.step()
    assert forgotten.status is Status.FAILED
    assert other.output_token_ids == expected_output([2], 3)


# ---- streams


def broken_sink(piece: OutputPiece) -> None:
    raise ZeroDivisionError("a reader's own mistake")


def test_a_stream_that_raises_harms_nobody_else():
    engine = make_engine()
    pieces: list[OutputPiece] = []
    engine.add([1], params(3), sink=broken_sink)
    other = engine.add([2], params(3), sink=pieces.append)
    engine.run_until_idle()
    assert other.output_token_ids == expected_output([2], 3)
    assert [token for piece in pieces for token in piece.token_ids] == other.output_token_ids
    check_it_serves(engine)


@within_deadline
def test_a_stream_that_raises_does_not_stop_the_loop():
    engine = make_engine()
    engine.start()
    stream = Stream()
    engine.add([1], params(30), sink=broken_sink)
    engine.add([2], params(30), sink=stream)
    assert [token for piece in stream for token in piece.token_ids] == expected_output([2], 30)
    late = Stream()
    engine.add([3], params(2), sink=late)
    assert [token for piece in late for token in piece.token_ids] == expected_output([3], 2)
    assert engine.is_running
    engine.close()


def test_a_stream_may_abort_its_request():
    """Each sample ends once, whoever is delivered to at that moment."""
    engine = make_engine(num_blocks=32)
    pieces: list[OutputPiece] = []

    def enough(piece: OutputPiece) -> None:
        pieces.append(piece)
        if sum(len(each.token_ids) for each in pieces) >= 4:
            engine.abort(piece.request_id)

    request = engine.add([1, 2, 3], params(9, n=3), sink=enough)
    engine.run_until_idle()
    assert [sample.status for sample in request.samples] == [Status.ABORTED] * 3
    ends = sorted(piece.index for piece in pieces if piece.finish_reason is not None)
    assert ends == [0, 1, 2]
    for index, sample in enumerate(request.samples):
        tokens = [t for piece in pieces if piece.index == index for t in piece.token_ids]
        assert tokens == sample.output_token_ids
    check_it_serves(engine)


# ---- observers that act


ACTIONS: dict[str, Callable[[Engine, Event], object]] = {
    "abort": lambda engine, event: engine.abort(getattr(event, "request_id", "req-0")),
    "abort another": lambda engine, event: engine.abort("req-2"),
    "forget the cache": lambda engine, event: engine.reset_prefix_cache(),
    "look": lambda engine, event: engine.snapshot(),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "kind", [RequestAdded, StepStarted, BlockTaken, BlockFreed, Scheduled, TokenSampled, Finished]
)
def test_an_observer_may_act_on_the_engine_at_any_moment(kind: type[Event], action: str):
    engine = make_engine(num_blocks=8, block_size=2)
    seen: list[Event] = []

    def act(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            ACTIONS[action](engine, event)

    engine.on(kind, act)
    requests = [engine.add([i, 7, 9, 11, 13], params(4, n=1 + i % 2)) for i in range(4)]
    for _ in range(200):
        if not engine.scheduler.has_work:
            break
        engine.step()
    assert len(seen) >= 2
    assert engine.events.wants(kind), "the engine raised on the observer"
    for request in requests:
        for index, sample in enumerate(request.samples):
            promised = expected_output([*request.prompt_token_ids], 4, index)
            assert sample.output_token_ids == promised[: sample.num_output_tokens]
            assert (sample.status is Status.FINISHED) == (sample.num_output_tokens == 4)
    check_it_serves(engine)


@pytest.mark.parametrize("kind", [StepStarted, BlockTaken, TokenSampled, StepFinished])
def test_an_observer_that_steps_inside_a_step_spoils_nothing(kind: type[Event]):
    engine = make_engine(num_blocks=8, block_size=2)
    seen: list[Event] = []

    def step(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            engine.step()

    engine.on(kind, step)
    requests = [engine.add([i, 7, 9, 11, 13], params(4)) for i in range(4)]
    engine.run_until(lambda report: report.step > 100)
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 4)
    check_it_serves(engine)


@pytest.mark.parametrize("kind", [StepStarted, BlockTaken, TokenSampled, StepFinished])
def test_an_observer_may_close_the_engine_in_the_middle_of_a_step(kind: type[Event]):
    engine = make_engine(num_blocks=8, block_size=2)
    seen: list[Event] = []

    def close(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            engine.close()

    engine.on(kind, close)
    requests = [engine.add([i, 7, 9, 11, 13], params(4)) for i in range(4)]
    with suppress(EngineClosed):
        engine.run_until(lambda report: report.step > 100)
    engine.close()
    assert all(request.is_finished for request in requests)
    assert not engine.scheduler.has_work
    engine.scheduler.check()
    assert engine.cache.pool.num_used == 0


def test_an_observer_may_add_a_request():
    engine = make_engine()
    followers: list[Request] = []

    def follow(event: Finished) -> None:
        if len(followers) < 3:
            followers.append(engine.add([len(followers) + 5], params(2)))

    engine.on(Finished, follow)
    engine.add([1], params(2))
    engine.run_until_idle()
    assert [request.output_token_ids for request in followers] == [
        expected_output([i + 5], 2) for i in range(3)
    ]


def test_a_request_added_in_the_middle_of_a_step_waits_for_the_next():
    engine = make_engine()
    late: list[Request] = []

    def once(event: BlockTaken) -> None:
        if not late:
            late.append(engine.add([9], params(2)))

    engine.on(BlockTaken, once)
    engine.add([1], params(2))
    engine.run_until_idle()
    assert late[0].output_token_ids == expected_output([9], 2)
    assert all(seconds >= 0 for seconds in late[0].waits_s.values())
    check_it_serves(engine)


@within_deadline
@pytest.mark.parametrize("kind", [StepStarted, BlockTaken, TokenSampled, StepFinished])
def test_an_observer_on_the_loops_thread_may_abort_add_and_look(kind: type[Event]):
    engine = make_engine(num_blocks=32)
    late, seen = Stream(), []

    def act(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            engine.abort("req-1")
            engine.snapshot()
            engine.add([9], params(3), sink=late)

    engine.on(kind, act)
    first, second = Stream(), Stream()
    engine.add([1], params(20), sink=first)
    engine.add([2], params(20), sink=second)
    engine.start()
    assert [token for piece in first for token in piece.token_ids] == expected_output([1], 20)
    *_, last = second
    assert last.finish_reason == "abort"
    assert [token for piece in late for token in piece.token_ids] == expected_output([9], 3)
    engine.stop()
    check_it_serves(engine)
    engine.close()
