"""What breaks: a runner, a stream, an observer. Only its own requests suffer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from tests.builders import LedgerRunner, expected_output, make_engine, params
from tests.engine.deadline import within_deadline
from tests.engine.letters import Letters, LetterSpelling, letter, spell
from tests.engine.scenarios import kept_by
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine, StepPlan, StepResult
from toolkit.engine.events import (
    BlockFreed,
    BlockTaken,
    Event,
    Failed,
    Finished,
    RequestAdded,
    Scheduled,
    StepFinished,
    StepStarted,
    TokenSampled,
)
from toolkit.engine.streams import Stream
from toolkit.errors import EngineClosed, InvalidRequest
from toolkit.request import OutputPiece, Request, SamplingParams, Status
from toolkit.text import IncrementalText, SpelledToken, StopStrings


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


def test_samples_prepared_before_an_exit_are_released():
    class ExitsAtTheThird(LedgerRunner):
        def prepare(self, request: Request) -> None:
            if request.sample_index == 2:
                raise SystemExit(3)
            super().prepare(request)

    engine = make_engine()
    engine.runner = ExitsAtTheThird(4)
    with pytest.raises(SystemExit):
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


class Exits(LedgerRunner):
    """Raises what is no Exception, as ``exit()`` in somebody's processor does."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__(block_size=4)
        self.error = error

    def run(self, plan: StepPlan) -> StepResult:
        if plan.step == 1:
            raise self.error
        return super().run(plan)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_an_exit_inside_a_step_by_hand_leaves_an_engine_that_works(error: type[BaseException]):
    engine = make_engine(max_num_batched_tokens=5)
    engine.runner = Exits(error)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    request = engine.add(prompt, params(3))
    engine.run_until_idle()
    assert request.status is Status.FAILED
    assert isinstance(request.error, error)
    check_it_serves(engine, prompt)


# ---- text


class BreaksAtQ(LetterSpelling):
    """A tokenizer that has no text for one of the model's tokens, and says so by raising."""

    def push(self, token_id: int) -> list[SpelledToken]:
        if letter(token_id) == "Q":
            raise IndexError("piece id is out of range")
        return super().push(token_id)


class FragileLetters(Letters):
    def output_text(
        self, prompt_token_ids: Sequence[int], params: SamplingParams
    ) -> IncrementalText:
        return IncrementalText(BreaksAtQ(self.form), StopStrings(()), include_stop=False)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_a_text_that_raises_fails_its_request_alone(num_samples: int):
    """Which of ten requests meet the token is known beforehand; the others go on."""
    engine = make_engine(text=FragileLetters(), num_blocks=64, max_num_seqs=20)
    prompts = [[number, 7] for number in range(10)]
    requests = [engine.add(prompt, params(9, n=num_samples)) for prompt in prompts]
    engine.run_until(lambda report: report.step > 50)
    ends = set()
    for prompt, request in zip(prompts, requests, strict=True):
        for index, sample in enumerate(request.samples):
            promised = expected_output(prompt, 9, index)
            if "Q" in spell(promised):
                assert sample.status is Status.FAILED
                assert isinstance(sample.error, IndexError)
            else:
                assert sample.output_token_ids == promised
            ends.add(sample.status)
    assert ends == {Status.FAILED, Status.FINISHED}, "the prompts above were to show both"
    check_it_serves(engine, [44, 45])


class BrokenText(IncrementalText):
    """Raises in one of its methods, from the second token on."""

    method = ""

    def push(self, token_id: int, check_stop: bool) -> str | None:
        self._raise_if("push")
        return super().push(token_id, check_stop)

    def take(self) -> str:
        self._raise_if("take")
        return super().take()

    def finish(self) -> None:
        self._raise_if("finish")
        super().finish()

    def _raise_if(self, method: str) -> None:
        if self.method == method and len(self._text) > 1:
            raise SystemExit(f"{method} gives up")


@pytest.mark.parametrize("method", ["push", "take", "finish"])
def test_whichever_part_of_a_text_raises_the_request_has_failed(method: str):
    engine = make_engine(text=Letters())
    pieces: list[OutputPiece] = []
    ends: list[tuple[str, str]] = []
    engine.on(Failed, lambda event: ends.append((event.request_id, type(event.error).__name__)))
    engine.on(Finished, lambda event: ends.append((event.request_id, event.reason)))
    bad = engine.add([1, 2], params(5), sink=pieces.append)
    good = engine.add([3, 4], params(5))
    assert isinstance(bad.text, IncrementalText)
    bad.text.__class__, BrokenText.method = BrokenText, method
    engine.run_until_idle()
    assert bad.status is Status.FAILED
    assert isinstance(bad.error, SystemExit)
    assert pieces[-1].finish_reason == "error"
    assert pieces[-1].error is bad.error
    assert [token for piece in pieces for token in piece.token_ids] == bad.output_token_ids
    assert good.output_token_ids == expected_output([3, 4], 5)
    assert ends == [("req-0", "SystemExit"), ("req-1", "length")]
    check_it_serves(engine)


def test_a_text_that_cannot_be_finished_does_not_keep_an_abort_from_ending():
    engine = make_engine(text=Letters())
    request = engine.add([1, 2], params(9))
    engine.run_until(lambda report: report.step == 2)
    assert isinstance(request.text, IncrementalText)
    request.text.__class__, BrokenText.method = BrokenText, "finish"
    assert engine.abort(request.id)
    assert request.status is Status.ABORTED
    check_it_serves(engine)


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


def test_a_stream_that_exits_is_aborted_and_harms_nobody_else():
    engine = make_engine()

    def exits(piece: OutputPiece) -> None:
        raise SystemExit(3)

    left = engine.add([1], params(3), sink=exits)
    other = engine.add([2], params(3))
    engine.run_until_idle()
    assert left.status is Status.ABORTED
    assert other.output_token_ids == expected_output([2], 3)
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


@pytest.mark.parametrize("kind", [StepStarted, BlockTaken, TokenSampled, StepFinished])
def test_an_observer_that_exits_spoils_nothing(kind: type[Event]):
    engine = make_engine(num_blocks=8, block_size=2)
    seen: list[Event] = []

    def leave(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            raise SystemExit(3)

    engine.on(kind, leave)
    requests = [engine.add([i, 7, 9, 11, 13], params(4)) for i in range(4)]
    engine.run_until_idle()
    assert len(seen) == 2
    assert not engine.events.wants(kind), "an observer that raises is detached"
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 4)
    check_it_serves(engine)


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
