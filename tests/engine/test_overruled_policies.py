"""A policy that answers nonsense is overruled, with one warning per kind, and harms nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.builders import expected_output, make_engine, params
from tests.engine.scenarios import Chaos, kept_by
from toolkit.engine import Engine, SchedulerView
from toolkit.engine.events import BlockTaken, Preempted
from toolkit.errors import EngineError, InvalidConfig
from toolkit.request import Request

METHODS = ["rank", "admit", "chunk", "victim"]


class Answers:
    """A policy with one method, which calls ``answer`` with what it was asked."""

    def __init__(self, method: str, answer: Callable[..., Any], *, static: bool = False) -> None:
        self.static = static
        self.num_calls = 0

        def asked(*arguments: Any) -> Any:
            self.num_calls += 1
            return answer(*arguments)

        setattr(self, method, asked)


def serve_a_crowd(policy: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Serve more than fits, check every step and every token; return the warnings."""
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        engine = make_engine(num_blocks=6, block_size=2, policy=policy)
        requests = [engine.add([i, 7, 9, 11, 13], params(6)) for i in range(4)]
        for _ in range(500):
            if not engine.scheduler.has_work:
                break
            engine.step()
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)
    assert kept_by(engine) == {}
    return [record.getMessage() for record in caplog.records]


async def later(*arguments: Any) -> int:
    """What somebody writes who takes a policy for a coroutine; never awaited."""
    return 1


class ReprRaises:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError("no picture of me")


NONSENSE: dict[str, dict[str, Callable[..., Any]]] = {
    "rank": {
        "None": lambda request, view: None,
        "NaN": lambda request, view: float("nan"),
        "NumPy's NaN": lambda request, view: np.float32("nan"),
        "an array": lambda request, view: np.arange(2),
        "an exception": lambda request, view: ValueError("returned, not raised"),
        "a coroutine": later,
        "an object": lambda request, view: ReprRaises(),
        "a complex number": lambda request, view: 1j,
        "text among numbers": lambda request, view: [1, "one"][request.arrival_index % 2],
        "tuples that differ late": lambda request, view: (0, [1, "1"][request.arrival_index % 2]),
    },
    "admit": {
        "None": lambda request, view: None,
        "text": lambda request, view: "no",
        "an array": lambda request, view: np.arange(2),
        "a coroutine": later,
        "an object": lambda request, view: ReprRaises(),
        "never": lambda request, view: False,
    },
    "chunk": {
        "None": lambda request, budget, view: None,
        "NaN": lambda request, budget, view: float("nan"),
        "negative": lambda request, budget, view: -1,
        "True": lambda request, budget, view: True,
        "half a token": lambda request, budget, view: 2.5,
        "text": lambda request, budget, view: "3",
        "an array": lambda request, budget, view: np.arange(2),
        "a coroutine": later,
        "nothing to anybody": lambda request, budget, view: 0,
    },
    "victim": {
        "None": lambda candidates, view: None,
        "an id": lambda candidates, view: candidates[0].id,
        "all of them": lambda candidates, view: candidates,
        "who waits": lambda candidates, view: next(iter(view.waiting), None),
        "a coroutine": later,
        "an object": lambda candidates, view: ReprRaises(),
    },
}


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(
    ("method", "kind"), [(method, kind) for method in METHODS for kind in NONSENSE[method]]
)
def test_nonsense_is_overruled_with_one_warning(
    method: str, kind: str, static: bool, caplog: pytest.LogCaptureFixture
):
    policy = Answers(method, NONSENSE[method][kind], static=static)
    warnings = serve_a_crowd(policy, caplog)
    assert policy.num_calls
    assert len(warnings) == 1
    assert f"policy Answers is overruled from now on where its {method}" in warnings[0]


def raises(error: type[BaseException]) -> Callable[..., Any]:
    def answer(*arguments: Any) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError,
        StopIteration,
        RecursionError,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_whatever_is_raised_is_overruled_with_one_warning(
    method: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
):
    warnings = serve_a_crowd(Answers(method, raises(error)), caplog)
    assert warnings == [f"policy Answers is overruled from now on where its {method} raised"]
    assert error.__name__ in caplog.text, "the traceback tells its author where"


class ComparesBadly:
    def __lt__(self, other: object) -> bool:
        raise SystemExit(3)


def test_a_rank_that_raises_when_it_is_compared_is_overruled(caplog: pytest.LogCaptureFixture):
    assert len(serve_a_crowd(lambda request, view: ComparesBadly(), caplog)) == 1


def test_a_policy_with_every_mistake_at_once_is_warned_of_once_per_kind(
    caplog: pytest.LogCaptureFixture,
):
    warnings = serve_a_crowd(Chaos(), caplog)
    assert 4 <= len(warnings) == len(set(warnings)) <= 12


# ---- what is no mistake


GOOD: dict[str, tuple[str, Callable[..., Any]]] = {
    "a NumPy integer for a chunk": ("chunk", lambda request, budget, view: np.int64(2)),
    "more than there is": ("chunk", lambda request, budget, view: 10**30),
    "a NumPy truth": ("admit", lambda request, view: np.True_),
    "one for true": ("admit", lambda request, view: 1),
    "NumPy numbers among others": (
        "rank",
        lambda request, view: [np.float32(1.5), 2, 2.5, np.int64(1)][request.arrival_index % 4],
    ),
    "text for ranks": ("rank", lambda request, view: request.id),
    "infinity": ("rank", lambda request, view: float("inf")),
    "tuples": ("rank", lambda request, view: (request.priority, "same", None is None)),
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_makes_sense_brings_no_warning(kind: str, caplog: pytest.LogCaptureFixture):
    assert serve_a_crowd(Answers(*GOOD[kind]), caplog) == []


def test_numpy_integers_are_the_chunks_that_are_planned():
    engine = make_engine(policy=Answers("chunk", lambda request, budget, view: np.int64(3)))
    engine.add([1] * 7, params(1))
    assert [engine.step().plan.num_tokens for _ in range(3)] == [3, 3, 1]


def test_a_static_rank_that_changes_counts_as_it_was_when_the_request_joined():
    moods = iter(range(1000, 0, -1))
    engine = make_engine(
        policy=Answers("rank", lambda request, view: next(moods), static=True), max_num_seqs=1
    )
    requests = [engine.add([number], params(2)) for number in range(5)]
    assert engine.scheduler.waiting == tuple(reversed(requests))
    engine.run_until_idle()
    assert all(len(request.output_token_ids) == 2 for request in requests)


def test_a_mutable_rank_that_changes_in_the_line_loses_nobody(caplog: pytest.LogCaptureFixture):
    ranks: list[list[int]] = []

    def rank(request: Request, view: SchedulerView) -> list[int]:
        for other in ranks:
            other[0] = -other[0] + 1
        ranks.append([request.arrival_index])
        return ranks[-1]

    assert serve_a_crowd(Answers("rank", rank, static=True), caplog) == []


# ---- hands off


MEDDLING: dict[str, Callable[[SchedulerView], object]] = {
    "empties the running": lambda view: view.running.clear(),  # type: ignore[attr-defined]
    "sorts the running": lambda view: view.running.sort(key=id),  # type: ignore[attr-defined]
    "replaces one": lambda view: view.running.__setitem__(0, None),  # type: ignore[attr-defined]
    "takes from the line": lambda view: view.waiting.pop(),  # type: ignore[attr-defined]
    "stops the clock": lambda view: setattr(view, "now_s", 0.0),
}


@pytest.mark.parametrize("how", MEDDLING)
@pytest.mark.parametrize("method", METHODS)
def test_a_view_cannot_be_changed(method: str, how: str, caplog: pytest.LogCaptureFixture):
    policy = Answers(method, lambda *arguments: MEDDLING[how](arguments[-1]))
    (warning,) = serve_a_crowd(policy, caplog)
    assert warning.endswith(f"{method} raised")


def test_the_candidates_cannot_be_changed(caplog: pytest.LogCaptureFixture):
    policy = Answers("victim", lambda candidates, view: candidates.clear())
    assert len(serve_a_crowd(policy, caplog)) == 1


def test_what_the_view_shows_can_be_looked_at_in_every_way():
    seen: list[bool] = []

    def look(request: Request, budget: int, view: SchedulerView) -> int:
        everybody = [*view.running, *view.waiting]
        seen.append(
            len(everybody) == len(view.running) + len(view.waiting)
            and request in view.running
            and request not in view.waiting
            and view.running[0] is everybody[0]
            and list(view.running[-1:]) == everybody[len(view.running) - 1 : len(view.running)]
            and everybody[0].id in repr(view.running)
        )
        return budget

    engine = make_engine(policy=Answers("chunk", look), max_num_seqs=2)
    for number in range(4):
        engine.add([number], params(3))
    engine.run_until_idle()
    assert len(seen) == 12
    assert all(seen)


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_that_assigns_another_one_while_it_is_asked_is_overruled(
    method: str, caplog: pytest.LogCaptureFixture
):
    engines: list[Engine] = []

    def assign(*arguments: Any) -> Any:
        if engines[0].scheduler.num_running:  # outside a step it would be an assignment like any
            engines[0].scheduler.policy = "fcfs"
        return 0 if method == "rank" else True

    with caplog.at_level(logging.WARNING, logger="toolkit"):
        engine = make_engine(num_blocks=6, block_size=2, policy=Answers(method, assign))
        engines.append(engine)
        requests = [engine.add([i, 7, 9, 11, 13], params(6)) for i in range(4)]
        engine.run_until_idle()
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)
    assert engine.scheduler.policy.name == "Answers"
    assert len(caplog.records) == 1
    assert "engine.set_policy" in caplog.text


def test_an_observer_cannot_assign_a_policy_while_a_step_is_planned():
    engine = make_engine(num_blocks=6, block_size=2)
    refused: list[EngineError] = []

    def assign(event: BlockTaken) -> None:
        try:
            engine.scheduler.policy = "priority"
        except EngineError as error:
            refused.append(error)
            engine.set_policy("priority")  # which waits for the end of the step

    engine.on(BlockTaken, assign)
    requests = [engine.add([i, 7, 9], params(6), priority=-i) for i in range(5)]
    engine.step()
    assert refused
    assert engine.scheduler.policy.name == "priority"
    engine.run_until_idle()
    for request in requests:
        assert request.output_token_ids == expected_output([*request.prompt_token_ids], 6)


# ---- one object, two engines; one mistake, one warning each


def test_one_object_may_serve_two_engines_and_each_says_what_it_overrules(
    caplog: pytest.LogCaptureFixture,
):
    policy = Answers("chunk", lambda request, budget, view: None)
    assert len(serve_a_crowd(policy, caplog)) == 1
    caplog.clear()
    assert len(serve_a_crowd(policy, caplog)) == 1


def test_a_victim_of_another_engine_is_not_taken(caplog: pytest.LogCaptureFixture):
    stranger = make_engine().add([1], params(1))
    policy = Answers("victim", lambda candidates, view: stranger)
    assert len(serve_a_crowd(policy, caplog)) == 1
    assert stranger.num_preemptions == 0


def test_who_has_its_chunk_already_is_not_preempted(caplog: pytest.LogCaptureFixture):
    """Its blocks are named in the plan, and others may share them."""

    def planned_if_possible(candidates: Any, view: SchedulerView) -> Request:
        planned = [request for request in view.running if request not in candidates]
        num_wishes.append(len(planned))
        return (planned or candidates)[-1]

    num_wishes: list[int] = []
    victims: list[str] = []
    engine = make_engine(num_blocks=6, block_size=2, policy=Answers("victim", planned_if_possible))
    engine.on(Preempted, lambda event: victims.append(event.request_id))
    prompts = [[number, 7, 9][: 3 - number % 2] for number in range(4)]
    requests = [engine.add(prompt, params(6)) for prompt in prompts]
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        engine.run_until_idle()
    assert victims
    assert any(num_wishes)
    assert len(caplog.records) == 1
    for prompt, request in zip(prompts, requests, strict=True):
        assert request.output_token_ids == expected_output(prompt, 6)


# ---- what is refused at once


class NeedsArguments:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def rank(self, request: Request, view: SchedulerView) -> float:
        return self.weight


class RankIsANumber:
    rank = 5


@pytest.mark.parametrize("policy", [NeedsArguments, RankIsANumber, RankIsANumber()])
def test_what_can_never_work_is_refused_when_it_is_given(policy: Any):
    with pytest.raises(InvalidConfig, match=r"give an object|not a method"):
        make_engine(policy=policy)
