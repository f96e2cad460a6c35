"""The engine's own thread: started, paused, stopped, closed, and talked to from everywhere."""

from __future__ import annotations

import gc
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.builders import LedgerRunner, expected_output, make_engine, params
from tests.engine.deadline import eventually, within_deadline
from tests.engine.scenarios import kept_by
from toolkit.engine import Engine, StepPlan, StepResult
from toolkit.engine.completion import Completion
from toolkit.engine.events import Event, RequestAdded, StepFinished, StepStarted, TokenSampled
from toolkit.engine.rewind import base_of
from toolkit.engine.streams import Stream
from toolkit.errors import EngineClosed, EngineError, EngineIsRunning
from toolkit.request import Request, Status

SHORT_S = 5.0  # for what must come at once
LONG = params(2_000)  # more than is computed while a test looks


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A roomy engine, closed afterwards on a thread that may be given up."""
    built = make_engine(num_blocks=1_024, max_model_len=4_096)
    yield built
    closing = threading.Thread(target=built.close, daemon=True)
    closing.start()
    closing.join(SHORT_S)
    assert not closing.is_alive(), "close() hangs"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = {thread.ident for thread in loop_threads()}
    yield
    eventually(lambda: {thread.ident for thread in loop_threads()} <= before, patience_s=SHORT_S)


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "toolkit-engine"]


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def tokens_of(stream: Stream) -> list[int]:
    return [token for piece in stream for token in piece.token_ids]


class GatedRunner(LedgerRunner):
    """Stands still inside a step until it is let go on."""

    def __init__(self) -> None:
        super().__init__(block_size=4)
        self.inside = threading.Event()
        self.go_on = threading.Event()

    def run(self, plan: StepPlan) -> StepResult:
        self.inside.set()
        assert self.go_on.wait(60)
        return super().run(plan)


@pytest.fixture
def gated(engine: Engine) -> Iterator[GatedRunner]:
    runner = GatedRunner()
    engine.runner = runner
    yield runner
    runner.go_on.set()


# ---- start and stop


def _repeat(call: Callable[[], object]) -> None:
    while True:
        call()


@within_deadline
def test_a_started_engine_works_by_itself(engine: Engine):
    engine.start()
    stream = Stream()
    engine.add([1], params(30), sink=stream)
    assert tokens_of(stream) == expected_output([1], 30)
    assert engine.is_running
    assert engine.is_started


@within_deadline
def test_starting_twice_starts_one_thread(engine: Engine):
    before = len(loop_threads())
    engine.start()
    engine.start()
    assert len(loop_threads()) == before + 1


@within_deadline
def test_starting_from_many_threads_starts_one_thread():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            engine = make_engine()
            before = len(loop_threads())
            barrier = threading.Barrier(8)
            threads = [in_thread(lambda: (barrier.wait(), engine.start())) for _ in range(8)]  # noqa: B023
            for thread in threads:
                thread.join()
            num_started = len(loop_threads()) - before
            engine.close()
            assert num_started == 1
    finally:
        sys.setswitchinterval(interval)


@within_deadline
def test_stop_leaves_unfinished_requests_which_go_on_later(engine: Engine):
    stream = Stream()
    request = engine.add([1], params(1_000), sink=stream)
    engine.start()
    eventually(lambda: request.num_output_tokens > 3)
    engine.stop()
    engine.stop()
    assert not engine.is_started
    assert not request.is_finished
    engine.scheduler.check()
    engine.step()
    engine.start()
    assert tokens_of(stream) == expected_output([1], 1_000)


@within_deadline
def test_requests_added_before_the_start_are_served(engine: Engine):
    streams = [Stream() for _ in range(5)]
    for index, stream in enumerate(streams):
        engine.add([index], params(5), sink=stream)
    engine.start()
    assert [tokens_of(stream) for stream in streams] == [
        expected_output([index], 5) for index in range(5)
    ]


@within_deadline
def test_no_wake_up_is_lost(engine: Engine):
    """Requests come just when the loop is about to fall asleep."""
    engine.start()
    rng = random.Random(5)
    for index in range(300):
        stream = Stream()
        engine.add([index % 50], params(1), sink=stream)
        assert tokens_of(stream) == expected_output([index % 50], 1)
        if rng.random() < 0.3:
            time.sleep(rng.random() * 1e-3)


@within_deadline
def test_driving_starts_the_loop_for_the_block_only(engine: Engine):
    with engine.driving(), engine.driving():
        stream = Stream()
        engine.add([1], params(3), sink=stream)
        assert tokens_of(stream) == expected_output([1], 3)
    assert not engine.is_started


@within_deadline
def test_driving_keeps_a_loop_that_was_started(engine: Engine):
    engine.start()
    with engine.driving():
        pass
    assert engine.is_running


@within_deadline
def test_driving_a_paused_engine_is_refused(engine: Engine):
    with engine.paused(), pytest.raises(EngineError, match="resume"), engine.driving():
        pass


# ---- pause


@within_deadline
def test_a_paused_engine_stands_still(engine: Engine):
    request = engine.add([1], LONG)
    engine.start()
    eventually(lambda: request.num_output_tokens > 3)
    with engine.paused():
        assert not engine.is_running
        assert engine.is_started
        before = (engine.step_number, request.num_output_tokens, engine.snapshot())
        time.sleep(0.05)
        assert before == (engine.step_number, request.num_output_tokens, engine.snapshot())
    eventually(lambda: request.num_output_tokens > before[1] + 3)


@within_deadline
def test_pauses_nest(engine: Engine):
    request = engine.add([1], LONG)
    engine.start()
    with engine.paused():
        with engine.paused():
            pass
        assert not engine.is_running
        still = request.num_output_tokens
        time.sleep(0.02)
        assert request.num_output_tokens == still
    eventually(lambda: request.num_output_tokens > still)


@within_deadline
def test_a_resume_too_many_does_no_harm(engine: Engine):
    engine.start()
    engine.resume()
    engine.pause()
    assert not engine.is_running
    engine.resume()
    assert engine.is_running


@within_deadline
def test_an_idle_engine_can_be_paused(engine: Engine):
    engine.start()
    for _ in range(50):
        with engine.paused():
            pass
    assert engine.is_running


@within_deadline
def test_pausing_and_resuming_a_busy_engine_changes_no_token(engine: Engine):
    stream = Stream()
    engine.add([1], params(400), sink=stream)
    engine.start()
    for _ in range(100):
        with engine.paused():
            engine.scheduler.check()
    assert tokens_of(stream) == expected_output([1], 400)


@within_deadline
def test_an_engine_that_was_never_started_can_be_paused(engine: Engine):
    engine.add([1], params(2))
    with engine.paused():
        engine.step()
    engine.run_until_idle()


@within_deadline
def test_stepping_a_running_engine_says_how_to(engine: Engine):
    engine.start()
    for call in (engine.step, lambda: engine.add([1], LONG) and engine.run_until_idle()):
        with pytest.raises(EngineIsRunning, match=r"engine\.paused\(\)"):
            _repeat(call)  # has_work may still be false when run_until_idle looks


@within_deadline
def test_a_paused_engine_can_be_stepped(engine: Engine):
    stream = Stream()
    request = engine.add([1], params(500), sink=stream)
    engine.start()
    with engine.paused():
        before = request.num_output_tokens
        report = engine.step()
        assert report.plan.num_tokens == 1
        assert request.num_output_tokens == before + 1
    assert tokens_of(stream) == expected_output([1], 500)


@within_deadline
def test_a_request_added_just_before_a_pause_is_there(engine: Engine, gated: GatedRunner):
    engine.add([1], params(3))
    engine.start()
    assert gated.inside.wait(SHORT_S)
    late = engine.add([2], params(3))
    pausing = in_thread(engine.pause)
    eventually(lambda: not engine.is_running)
    gated.go_on.set()
    pausing.join()
    assert late in engine.scheduler.waiting
    assert late.id in {waiting.request_id for waiting in engine.snapshot().waiting}
    engine.run_until_idle()
    assert late.output_token_ids == expected_output([2], 3)
    engine.resume()


@within_deadline
def test_a_request_added_to_an_idle_engine_just_before_a_pause_is_served_by_hand(engine: Engine):
    engine.start()
    for index in range(50):
        request = engine.add([index], params(1))
        with engine.paused():
            engine.run_until_idle()
            assert request.output_token_ids == expected_output([index], 1)


@within_deadline
def test_a_request_added_just_before_a_pause_can_be_aborted(engine: Engine, gated: GatedRunner):
    engine.add([1], params(3))
    engine.start()
    assert gated.inside.wait(SHORT_S)
    late = engine.add([2], params(3))
    pausing = in_thread(engine.pause)
    eventually(lambda: not engine.is_running)
    gated.go_on.set()
    pausing.join()
    assert engine.abort(late.id)
    engine.resume()
    assert late.status is Status.ABORTED


@within_deadline
def test_a_call_that_waits_for_the_step_is_answered_though_a_pause_follows(
    engine: Engine, gated: GatedRunner
):
    """Else whoever pauses and then waits for the caller waits for ever."""
    engine.add([1], params(3))
    engine.start()
    assert gated.inside.wait(SHORT_S)
    calling = in_thread(engine.snapshot)
    eventually(lambda: bool(engine._loop._inbox))
    pausing = in_thread(engine.pause)
    eventually(lambda: not engine.is_running)
    gated.go_on.set()
    pausing.join()
    calling.join(SHORT_S)
    hangs = calling.is_alive()
    engine.resume()
    assert not hangs


@within_deadline
def test_pause_from_the_loops_own_thread_takes_hold_after_the_step(engine: Engine):
    request = engine.add([1], params(20))
    steps: list[int] = []

    def hold(event: StepFinished) -> None:
        steps.append(event.step)
        if event.step == 2:
            engine.pause()

    engine.on(StepFinished, hold)
    engine.start()
    eventually(lambda: not engine.is_running)
    time.sleep(0.02)
    assert steps == [0, 1, 2]
    engine.resume()
    eventually(lambda: request.is_finished)


# ---- close


@within_deadline
def test_close_aborts_what_is_unfinished_and_is_idempotent(engine: Engine):
    stream = Stream(2)
    request = engine.add([1], params(1_000, n=2), sink=stream)
    engine.start()
    eventually(lambda: request.num_output_tokens > 2)
    engine.close()
    engine.close()
    assert [sample.status for sample in request.samples] == [Status.ABORTED] * 2
    ends = [piece.finish_reason for piece in stream if piece.finish_reason]
    assert ends == ["abort", "abort"]
    assert not engine.is_started
    assert engine.cache.pool.num_used == 0
    assert kept_by(engine) == {}


@within_deadline
def test_the_runner_is_closed_once(engine: Engine):
    closed: list[bool] = []

    class Counts(LedgerRunner):
        def close(self) -> None:
            closed.append(True)

    engine.runner = Counts(4)
    threads = [in_thread(engine.close) for _ in range(4)]
    for thread in threads:
        thread.join()
    engine.close()
    assert closed == [True]


@within_deadline
def test_a_closed_engine_says_so(engine: Engine):
    engine.close()
    for call in (lambda: engine.add([1]), engine.step, engine.start):
        with pytest.raises(EngineClosed):
            call()
    assert not engine.abort("req-0")
    assert "closed" in repr(engine)


@within_deadline
def test_a_request_that_arrives_while_the_engine_closes_is_not_left_hanging(engine: Engine):
    """It was accepted before the close and reaches the line after it."""
    closed = threading.Event()

    class Slow(LedgerRunner):
        def prepare(self, request: Request) -> None:
            assert closed.wait(60)

    engine.runner = Slow(4)
    engine.start()
    stream, outcome = Stream(), []

    def add() -> None:
        try:
            outcome.append(engine.add([1], params(3), sink=stream))
        except EngineClosed as error:
            outcome.append(error)

    adding = in_thread(add)
    time.sleep(0.02)
    engine.close()
    closed.set()
    adding.join()
    if isinstance(outcome[0], Request):
        *_, last = stream
        assert last.finish_reason == "abort"
    assert not engine.scheduler.has_work


@within_deadline
def test_closing_from_the_loops_own_thread_ends_the_thread(engine: Engine):
    request = engine.add([1], params(1_000))

    def close(event: TokenSampled) -> None:
        if event.index == 3:
            engine.close()

    engine.on(TokenSampled, close)
    engine.start()
    eventually(lambda: request.is_finished, patience_s=SHORT_S)
    eventually(lambda: not engine.is_started, patience_s=SHORT_S)
    with pytest.raises(EngineClosed):
        engine.add([1])


@within_deadline
def test_stopping_from_the_loops_own_thread_ends_the_thread(engine: Engine):
    request = engine.add([1], params(1_000))

    def stop(event: TokenSampled) -> None:
        if event.index == 3:
            engine.stop()

    engine.on(TokenSampled, stop)
    engine.start()
    eventually(lambda: not engine.is_started, patience_s=SHORT_S)
    assert not request.is_finished


# ---- everybody at once


@pytest.mark.parametrize("seed", range(3))
@within_deadline
def test_eight_threads_add_abort_and_look_while_the_loop_runs(seed: int):
    engine = make_engine(num_blocks=24, block_size=4, max_num_seqs=6)
    engine.start()
    served: list[tuple[Request, Stream]] = []
    errors: list[BaseException] = []

    def visit(number: int) -> None:
        rng = random.Random(100 * seed + number)
        try:
            for _ in range(25):
                prompt = rng.choices(range(3), k=rng.randint(1, 12))
                n = rng.choice([1, 1, 2])
                stream = Stream(n)
                request = engine.add(prompt, params(rng.randint(1, 12), n=n), sink=stream)
                served.append((request, stream))
                match rng.randrange(5):
                    case 0:
                        engine.abort(request.id)
                    case 1:
                        engine.snapshot()
                    case 2:
                        # Other threads' requests still arrive, so the check takes its turn.
                        with engine.paused():
                            engine._loop.call(engine.scheduler.check)
                    case 3:
                        engine.set_policy(rng.choice(["fcfs", "priority"]))
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 2e-3)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [in_thread(lambda number=number: visit(number)) for number in range(8)]
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({request.id for request, _ in served}) == 8 * 25
    for request, stream in served:
        pieces = list(stream)
        for index, sample in enumerate(request.samples):
            own = [piece for piece in pieces if piece.index == index]
            tokens = [token for piece in own for token in piece.token_ids]
            assert tokens == sample.output_token_ids
            promised = expected_output([*request.prompt_token_ids], request.max_tokens, index)
            assert tokens == promised[: len(tokens)]
            if sample.status is Status.FINISHED:
                assert tokens == promised
            else:
                assert sample.status is Status.ABORTED
    engine.stop()
    engine.scheduler.check()
    assert kept_by(engine) == {}
    engine.close()


@pytest.mark.parametrize("call", ["abort", "add", "snapshot", "close"])
@within_deadline
def test_what_another_thread_wants_waits_for_the_step_of_this_one(
    engine: Engine, gated: GatedRunner, call: str
):
    request = engine.add([1], params(3))
    stepping = in_thread(engine.step)
    assert gated.inside.wait(SHORT_S)
    calls: dict[str, Callable[[], object]] = {
        "abort": lambda: engine.abort(request.id),
        "add": lambda: engine.add([2], params(3)),
        "snapshot": engine.snapshot,
        "close": engine.close,
    }
    calling = in_thread(calls[call])
    time.sleep(0.05)
    assert not request.is_finished
    assert engine.scheduler.num_waiting == 0
    if call != "add":
        assert calling.is_alive()
    gated.go_on.set()
    stepping.join()
    calling.join()
    engine.scheduler.check()


@within_deadline
def test_snapshots_are_never_torn(engine: Engine):
    """Between two steps no request has more computed than known, nor blocks beyond the pool's."""
    engine.start()
    for index in range(6):
        engine.add([index] * 20, LONG)
    for _ in range(100):
        picture = engine.snapshot()
        held = {block for request in picture.running for block in request.block_ids}
        assert len(held) == picture.blocks.used
        for request in picture.running:
            known = request.num_prompt_tokens + request.num_output_tokens
            assert request.num_computed_tokens < known
            assert request.status == "running"
    assert sum(picture.blocks) == engine.cache.num_blocks


@within_deadline
def test_subscriptions_from_many_threads_are_all_kept(engine: Engine):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    heard: list[int] = []
    try:
        threads = [
            in_thread(
                lambda number=number: [
                    engine.on(RequestAdded, lambda event, i=i: heard.append(100 * number + i))
                    for i in range(50)
                ]
            )
            for number in range(8)
        ]
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    engine.add([1], params(1))
    assert len(heard) == 8 * 50


@within_deadline
def test_an_abort_answers_whether_the_request_was_unfinished(engine: Engine):
    engine.start()
    request = engine.add([1], LONG)
    assert engine.abort(request.id)
    assert request.status is Status.ABORTED
    assert not engine.abort(request.id)


@within_deadline
def test_an_error_in_a_call_reaches_the_caller(engine: Engine):
    engine.start()
    with pytest.raises(ValueError, match="best"):
        engine.set_policy("best")
    assert engine.is_running


# ---- what breaks on the thread


@within_deadline
def test_a_broken_step_ends_its_requests_and_the_loop_goes_on(
    engine: Engine, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.CRITICAL, logger="toolkit")
    engine.runner.fail_steps = {4}
    engine.start()
    stream = Stream()
    request = engine.add([1], params(30), sink=stream)
    *_, last = stream
    assert last.finish_reason == "error"
    assert isinstance(last.error, RuntimeError)
    assert last.error is request.error
    late = Stream()
    engine.add([1], params(3), sink=late)
    assert tokens_of(late) == expected_output([1], 3)
    assert engine.is_running


class Exits(LedgerRunner):
    """Raises what is no Exception, as sys.exit() in somebody's code does."""

    def run(self, plan: StepPlan) -> StepResult:
        if plan.step == 2:
            raise SystemExit(3)
        return super().run(plan)


@within_deadline
def test_an_exit_inside_a_step_does_not_leave_readers_waiting(
    engine: Engine, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.CRITICAL, logger="toolkit")
    engine.runner = Exits(4)
    stream = Stream()
    engine.add([1], params(30), sink=stream)
    engine.start()
    *_, last = stream
    assert last.finish_reason == "error"


@within_deadline
def test_a_broken_invariant_ends_all_requests_and_the_loop_goes_on(
    engine: Engine, caplog: pytest.LogCaptureFixture
):
    """The engine checks itself at every step here; a corrupted pool must not hang anybody."""
    caplog.set_level(logging.CRITICAL, logger="toolkit")
    streams = [Stream() for _ in range(3)]
    for index, stream in enumerate(streams):
        engine.add([index], params(50), sink=stream)

    def corrupt(event: StepStarted) -> None:
        if event.step == 3:
            engine.cache.pool._ref_counts[500] += 1

    engine.on(StepStarted, corrupt)
    engine.start()
    for stream in streams:
        *_, last = stream
        assert last.finish_reason == "error"
    with engine.paused():
        engine.cache.pool._ref_counts[500] -= 1
    late = Stream()
    engine.add([5], params(2), sink=late)
    assert tokens_of(late) == expected_output([5], 2)


@within_deadline
def test_a_request_that_got_lost_does_not_keep_the_loop_busy(
    engine: Engine, caplog: pytest.LogCaptureFixture
):
    """A bug of ours that leaves a request in no list must end it, not fail in every step."""
    caplog.set_level(logging.CRITICAL, logger="toolkit")
    stream = Stream()
    engine.add([1], params(50), sink=stream)

    def lose(event: StepStarted) -> None:
        if event.step == 3:
            engine.scheduler._running.clear()

    engine.on(StepStarted, lose)
    engine.start()
    *_, last = stream
    assert last.finish_reason == "error"
    eventually(lambda: not engine.scheduler.has_work, patience_s=SHORT_S)


# ---- leaks


def num_alive(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


@within_deadline
def test_five_hundred_requests_leave_nothing_behind():
    before = num_alive(Request)
    engine: Any = make_engine(num_blocks=64)
    engine.start()
    streams = []
    for index in range(500):
        stream = Stream(2)
        engine.add([index % 50, 3, 4], params(2, n=2), sink=stream)
        streams.append(stream)
    for stream in streams:
        assert len(tokens_of(stream)) == 4
    engine.stop()
    assert kept_by(engine) == {}
    engine.journal = engine.journal.starting_at(
        base_of(engine)
    )  # as it does when it has become long
    # The last step's plan may still be looked at; nothing older is.
    assert num_alive(Request) - before <= 8
    engine.close()


@within_deadline
def test_a_closed_engine_is_garbage():
    engines, runners = num_alive(Engine), num_alive(LedgerRunner)
    engine = make_engine()
    engine.start()
    stream = Stream()
    engine.add([1], params(3), sink=stream)
    assert len(tokens_of(stream)) == 3
    engine.close()
    del engine
    assert (num_alive(Engine), num_alive(LedgerRunner)) == (engines, runners)


@within_deadline
@pytest.mark.parametrize("kind", [RequestAdded, StepFinished])
@pytest.mark.parametrize("is_threaded", [True, False])
def test_what_the_engine_calls_cannot_wait_for_it(
    engine: Engine, kind: type[Event], is_threaded: bool
):
    told: list[BaseException] = []

    def drive() -> None:
        with engine.driving():
            pass

    def complete() -> None:
        with Completion(engine) as completion:
            list(completion.wait_for([], interval_s=0.1))

    def wait(event: Event) -> None:
        for act in (drive, complete):
            try:
                act()
            except EngineIsRunning as error:
                told.append(error)

    engine.on(kind, wait)
    if is_threaded:
        engine.start()
    request = engine.add([1], params(2))
    if not is_threaded:
        engine.run_until_idle()
    eventually(lambda: request.is_finished and len(told) >= 2)
    assert "cannot wait for the engine's next step" in str(told[0])
    drive()  # others may, as before
