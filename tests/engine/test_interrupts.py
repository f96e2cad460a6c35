"""Ctrl-C at any moment: the step is whole, the engine usable, no token lost."""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.builders import LedgerRunner, expected_output, make_engine, params
from tests.engine.scenarios import kept_by
from toolkit.engine import Engine, StepPlan, StepResult
from toolkit.engine.events import Event, RequestAdded, StepStarted, TokenSampled

PATIENCE_S = 120


class CtrlC:
    """A SIGINT handler that raises while it is armed, so that a late signal hits nobody."""

    def __init__(self) -> None:
        self.armed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            raise KeyboardInterrupt


@pytest.fixture
def ctrl_c() -> Iterator[CtrlC]:
    """Install the handler, and an alarm against hangs, on the main thread."""
    handler = CtrlC()

    def too_late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it hangs: not over after {PATIENCE_S} s")

    old = signal.signal(signal.SIGINT, handler), signal.signal(signal.SIGALRM, too_late)
    signal.alarm(PATIENCE_S)
    yield handler
    signal.alarm(0)
    signal.signal(signal.SIGINT, old[0])
    signal.signal(signal.SIGALRM, old[1])


class Interrupted(LedgerRunner):
    """Gets a SIGINT in the middle of a step."""

    def __init__(self, steps: set[int]) -> None:
        super().__init__(block_size=4)
        self.steps = steps
        self.was_cut = False

    def run(self, plan: StepPlan) -> StepResult:
        if plan.step in self.steps:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                self.was_cut = True
                raise
        return super().run(plan)


def finish(engine: Engine) -> int:
    """Run to the end, through every interrupt; return how many there were."""
    num_interrupts = 0
    while engine.scheduler.has_work:
        try:
            engine.run_until_idle()
        except KeyboardInterrupt:
            num_interrupts += 1
            engine.scheduler.check()
    return num_interrupts


def test_an_interrupt_comes_after_the_step_it_hit(ctrl_c: CtrlC):
    engine = make_engine()
    engine.runner = runner = Interrupted({2})
    request = engine.add([1], params(5))
    ctrl_c.armed = True
    with pytest.raises(KeyboardInterrupt):
        engine.run_until_idle()
    ctrl_c.armed = False
    assert not runner.was_cut
    assert request.num_output_tokens == 3
    engine.run_until_idle()
    assert request.output_token_ids == expected_output([1], 5)


def test_two_interrupts_in_one_step_are_one(ctrl_c: CtrlC):
    engine = make_engine()

    class Twice(Interrupted):
        def run(self, plan: StepPlan) -> StepResult:
            signal.raise_signal(signal.SIGINT)
            return super().run(plan)

    engine.runner = Twice({1})
    engine.add([1], params(2))
    ctrl_c.armed = True
    assert finish(engine) == 2
    ctrl_c.armed = False


@pytest.mark.parametrize("kind", [StepStarted, TokenSampled])
def test_an_interrupt_inside_an_observer_does_not_cut_the_step(ctrl_c: CtrlC, kind: type[Event]):
    engine = make_engine()
    engine.on(kind, lambda event: signal.raise_signal(signal.SIGINT) if event.step == 1 else None)
    request = engine.add([1], params(4))
    ctrl_c.armed = True
    assert finish(engine) == 1
    ctrl_c.armed = False
    assert request.output_token_ids == expected_output([1], 4)


def test_the_handler_is_back_after_every_step(ctrl_c: CtrlC):
    engine = make_engine()
    engine.runner.fail_steps = {1}
    engine.add([1], params(3))
    while engine.scheduler.has_work:
        engine.step()
        assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_where_interrupts_are_ignored_they_stay_ignored(ctrl_c: CtrlC):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = make_engine()
    engine.runner = Interrupted({1})
    engine.add([1], params(3))
    engine.run_until_idle()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_interrupts_from_a_timer_at_any_moment_lose_nothing(ctrl_c: CtrlC):
    engine = make_engine(num_blocks=12, block_size=2)
    requests = [engine.add([i, 7, 9], params(12, n=1 + i % 2)) for i in range(8)]
    rng = random.Random(3)
    over = threading.Event()

    def strike() -> None:
        while not over.wait(rng.random() * 0.003):
            signal.raise_signal(signal.SIGINT)

    striking = threading.Thread(target=strike, daemon=True)
    gc.disable()  # what is raised while garbage is collected goes to no caller
    striking.start()
    try:
        while engine.scheduler.has_work:
            try:
                ctrl_c.armed = True
                engine.run_until_idle()
            except KeyboardInterrupt:
                ctrl_c.armed = False
            ctrl_c.armed = False
    finally:
        over.set()
        striking.join()
        gc.enable()
    engine.scheduler.check()
    for request in requests:
        for index, sample in enumerate(request.samples):
            assert sample.output_token_ids == expected_output(
                [*request.prompt_token_ids], 12, index
            )
    assert kept_by(engine) == {}


def test_an_interrupt_while_a_request_is_added_adds_it_whole_or_not_at_all(ctrl_c: CtrlC):
    engine = make_engine()
    engine.on(
        RequestAdded,
        lambda event: signal.raise_signal(signal.SIGINT) if event.request_id == "req-0" else None,
    )
    ctrl_c.armed = True
    with pytest.raises(KeyboardInterrupt):
        engine.add([1, 2, 3], params(3, n=3))
    ctrl_c.armed = False
    engine.scheduler.check()
    assert engine.scheduler.num_waiting in (0, 3)
    engine.run_until_idle()
    request = engine.add([5], params(2))
    engine.run_until_idle()
    assert request.output_token_ids == expected_output([5], 2)
    assert kept_by(engine) == {}


def test_a_step_on_another_thread_leaves_the_handler_alone(ctrl_c: CtrlC):
    engine = make_engine()
    request = engine.add([1], params(3))
    seen: list[object] = []
    engine.on(StepStarted, lambda event: seen.append(signal.getsignal(signal.SIGINT)))
    stepping = threading.Thread(target=engine.run_until_idle)
    stepping.start()
    stepping.join(60)
    assert seen == [ctrl_c] * 3
    assert request.num_output_tokens == 3


def test_an_interrupt_does_not_reach_the_loops_thread(ctrl_c: CtrlC):
    engine = make_engine(num_blocks=64)
    request = engine.add([1], params(100))
    engine.start()
    ctrl_c.armed = True
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    ctrl_c.armed = False
    engine.run_until(lambda report: True) if not engine.is_running else None
    while not request.is_finished:
        pass
    assert request.output_token_ids == expected_output([1], 100)
    engine.close()
