"""What is begun early when others look in meanwhile, when it fails, and when nobody is left."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models.checkpoints import FAMILIES, write_checkpoint
from tests.runtime.pairs import engine_like
from toolkit import LLM, Hook, SamplingParams
from toolkit.engine import Engine
from toolkit.request import Request
from toolkit.runtime import ModelRunner
from toolkit.runtime.cuda_graphs import EagerReplay

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), FAMILIES["llama"])
    with LLM(str(folder), dtype="float32", tokenizer=False, kernels="reference") as llm:
        yield llm


def runner_of(engine: Engine) -> ModelRunner:
    assert isinstance(engine.runner, ModelRunner)
    return engine.runner


def greedy_answer(llm: LLM, prompt: list[int]) -> list[int]:
    engine = engine_like(llm, asynchronous=False)
    request = engine.add(prompt, GREEDY)
    engine.run_until_idle()
    return request.output_token_ids


class Changing:
    """An answer that is another one each time: as if a thread changed it between two looks."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    def __call__(self, *_: Any) -> bool:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


# ---- who looks in


@pytest.mark.parametrize("answers", [(False, True), (True, False), (False, False, True)])
def test_explanations_that_are_asked_for_in_the_middle_of_a_step_break_nothing(
    tiny: LLM, answers: tuple[bool, ...]
):
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([1, 2, 3], GREEDY)
    engine.step()
    engine.step()
    runner_of(engine).sampler.explained.everybody = Changing(*answers)
    engine.run_until_idle()
    assert request.error is None
    assert request.output_token_ids == greedy_answer(tiny, [1, 2, 3])


@pytest.mark.parametrize("answers", [(False, True), (True, False)])
def test_a_choice_of_the_explained_that_changes_its_mind_breaks_nothing(
    tiny: LLM, answers: tuple[bool, ...]
):
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([1, 2, 3], GREEDY)
    engine.step()
    engine.step()
    runner_of(engine).sampler.explain_if(Changing(*answers))
    engine.run_until_idle()
    assert request.error is None
    assert request.output_token_ids == greedy_answer(tiny, [1, 2, 3])


def test_a_step_that_is_all_in_flight_is_used_whoever_begins_to_look_behind_it(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    engine.add([1, 2, 3], GREEDY)
    engine.step()
    ahead = runner_of(engine).ahead
    runner_of(engine).sampler.explained.everybody = Changing(False, True)
    engine.step()
    assert ahead.num_used == 1


@pytest.mark.parametrize("looks", ["explained", "hooked"])
def test_another_thread_may_begin_and_end_to_look_at_any_time(tiny: LLM, looks: str):
    engine = engine_like(tiny, asynchronous=True)
    expected = greedy_answer(tiny, [1, 2, 3])
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            if looks == "explained":
                engine.record.level = "explain"
                engine.record.level = "tokens"
            else:
                hook = Hook("layers.0.resid_post", lambda states, where: None)
                engine.abort(engine.add([5, 6], GREEDY, hooks=hook))

    thread = threading.Thread(target=look)
    engine.start()
    thread.start()
    try:
        requests = [engine.add([1, 2, 3], GREEDY) for _ in range(12)]
        for request in requests:
            _wait_for(request)
    finally:
        ended.set()
        thread.join()
        engine.close()
    assert [request.error for request in requests] == [None] * 12
    assert {tuple(request.output_token_ids) for request in requests} == {tuple(expected)}


def _wait_for(request: Request) -> None:
    for _ in range(6_000):
        if request.is_finished:
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never ended")


# ---- what fails


def test_a_step_is_none_the_worse_for_what_cannot_be_begun_behind_it(
    tiny: LLM, caplog: pytest.LogCaptureFixture
):
    """The memory of the logits of two steps, say, where there is enough for one."""
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([1, 2, 3], GREEDY)
    engine.step()
    decoder = runner_of(engine).decoder

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory for another step")

    ahead, num_tokens = runner_of(engine).ahead, request.num_output_tokens
    handle = decoder.register_forward_pre_hook(fails)
    try:
        with caplog.at_level(logging.WARNING, logger="toolkit"):
            engine.step()
            assert request.num_output_tokens == num_tokens + 1
            assert not ahead.is_flying
    finally:
        handle.remove()
    assert "no memory for another step" in caplog.text
    engine.run_until_idle()
    assert request.output_token_ids == greedy_answer(tiny, [1, 2, 3])
    assert ahead.num_used > 1, "it begins steps early again"


def test_what_cannot_be_begun_is_told_once(tiny: LLM, caplog: pytest.LogCaptureFixture):
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([1, 2, 3], GREEDY)
    decoder = runner_of(engine).decoder
    calls = [0]

    def fails_each_second_time(*_: Any) -> None:
        calls[0] += 1
        if calls[0] % 2 == 0:
            raise RuntimeError("not this one")

    handle = decoder.register_forward_pre_hook(fails_each_second_time)
    try:
        with caplog.at_level(logging.WARNING, logger="toolkit"):
            engine.run_until_idle()
    finally:
        handle.remove()
    assert request.output_token_ids == greedy_answer(tiny, [1, 2, 3])
    assert runner_of(engine).ahead.num_begun == 0
    assert len(caplog.records) == 1


# ---- when nobody is left


def test_nothing_stays_in_flight_when_everybody_has_ended(tiny: LLM):
    stop = greedy_answer(tiny, [5, 6, 7])[4]
    engine = engine_like(tiny, asynchronous=True)
    engine.add([5, 6, 7], replace(GREEDY, stop_token_ids=[stop]))
    while engine.scheduler.has_work:
        engine.step()
    assert not runner_of(engine).ahead.is_flying


def test_an_aborted_request_is_let_go_of_when_nobody_else_runs(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([5, 6, 7], GREEDY)
    engine.step()
    assert runner_of(engine).ahead.is_flying
    engine.abort(request)
    assert not runner_of(engine).ahead.is_flying


def test_a_closed_engine_lets_go_of_the_model(tmp_path: Any):
    folder = write_checkpoint(tmp_path, FAMILIES["llama"])
    llm = LLM(str(folder), dtype="float32", tokenizer=False, kernels="reference")
    engine = engine_like(llm, asynchronous=True, capture=EagerReplay)
    engine.add([1, 2, 3], GREEDY)
    engine.run_until_idle()
    runner = runner_of(engine)
    decoder = weakref.ref(runner.decoder)
    llm.close()
    engine.close()
    assert runner.graphs is None
    del llm, engine
    gc.collect()
    assert decoder() is None, "the runner, which somebody still holds, holds it"
