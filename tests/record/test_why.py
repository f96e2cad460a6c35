"""Why a request was slow: staged cases with one true cause each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pandas as pd
import pytest

from tests.builders import LedgerRunner, make_engine, params
from tests.record.test_spans import crowd
from toolkit.clock import VirtualClock, WallClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine, StepPlan, StepResult
from toolkit.errors import UnknownRequest
from toolkit.record import Record
from toolkit.record.waterfall import COLOURS
from toolkit.record.why_parts import why_from_json, why_to_json
from toolkit.request import Request, RequestOrigin


class TokenRunner(LedgerRunner):
    """A step takes a millisecond for each of its tokens; grammars come from outside."""

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        request.preparation = request.tags.get("preparation")

    def run(self, plan: StepPlan) -> StepResult:
        assert self.clock is not None
        self.clock.advance(0.001 * plan.num_tokens)
        return super().run(plan)


def stage(**settings: Any) -> Engine:
    engine = make_engine(recorder=Record(), **settings)
    assert isinstance(engine.clock, VirtualClock)
    engine.runner = TokenRunner(engine.config.cache.block_size, engine.clock)
    engine.clock.advance(1.0)
    return engine


def test_a_long_prompt_ahead_took_the_budget():
    engine = stage(num_blocks=64, max_num_batched_tokens=16)
    long = engine.add([1] * 150, params(1))
    victim = engine.add([2] * 4, params(1))
    engine.run_until_idle()
    why = engine.record.why(victim.id)
    assert why.main == "budget"
    assert f"spent on the prompt of {long.id} (144 tokens)" in why.sentence
    assert why.responsible.iloc[0].to_dict()["request_id"] == long.id
    assert why.responsible.iloc[0]["role"] == "took the budget"
    assert (why.batch["mates_prompt_tokens"].iloc[:9] == 16).all()


def test_a_long_prompt_in_the_step_under_way_is_named_when_there_is_only_that_step():
    engine = stage(num_blocks=64, max_num_batched_tokens=256)
    long = engine.add([1] * 200, params(1))

    class AddsMidway(TokenRunner):
        def run(self, plan: StepPlan) -> StepResult:
            assert self.clock is not None
            if plan.step == 0:
                self.clock.advance(0.02)
                engine.add([2] * 4, params(1))  # comes into effect when the step is over
            return super().run(plan)

    runner = AddsMidway(engine.config.cache.block_size, engine.clock)  # type: ignore[arg-type]
    runner.requests.update(engine.runner.requests)  # type: ignore[attr-defined]
    engine.runner = runner
    engine.run_until_idle()
    why = engine.record.why("req-1")
    assert why.main == "step"
    assert f"for the step under way, which computed the prompt of {long.id}" in why.sentence


def test_blocks_were_exhausted_and_their_holders_are_named():
    engine = stage(num_blocks=8, max_num_batched_tokens=64)
    holder = engine.add([1] * 20, params(12))
    victim = engine.add([2] * 16, params(1))
    engine.run_until_idle()
    why = engine.record.why(victim.id)
    assert why.main == "blocks"
    assert f"for blocks, held by {holder.id} (" in why.sentence
    assert list(why.responsible["role"].unique()) == ["held blocks"]


def test_a_seat_was_taken():
    engine = stage(max_num_seqs=1)
    holder = engine.add([1] * 4, params(12))
    victim = engine.add([2] * 4, params(1))
    engine.run_until_idle()
    why = engine.record.why(victim.id)
    assert why.main == "seqs"
    assert f"taken by {holder.id}" in why.sentence


def test_a_grammar_was_compiled():
    engine = stage()
    preparation: Future[None] = Future()
    victim = engine.add([1, 2], params(1), tags={"preparation": preparation})
    engine.add([3, 4], params(8))
    for _ in range(6):
        engine.step()
    preparation.set_result(None)
    engine.run_until_idle()
    why = engine.record.why(victim.id)
    assert why.main == "grammar"
    assert "for its grammar to be compiled" in why.sentence


def test_the_interpreter_was_busy():
    """A thread that keeps the interpreter's lock: the engine's own gets its turn late."""
    busy = make_busy_engine()
    try:
        busy.start()
        added: list[Request] = []
        thread = threading.Thread(
            target=_hold_the_interpreter,
            args=(0.25, lambda: added.append(busy.add([1, 2, 3], params(2)))),
        )
        thread.start()
        thread.join()
        (victim,) = added
        deadline_s = time.monotonic() + 10
        while not victim.is_finished and time.monotonic() < deadline_s:
            time.sleep(0.01)
    finally:
        busy.stop()
    why = busy.record.why(victim.id)
    assert why.main == "host"
    assert "its interpreter was busy" in why.sentence


def test_the_blocks_went_to_another():
    engine = stage(num_blocks=6, max_num_batched_tokens=64, enable_prefix_caching=False)
    first = engine.add([1] * 10, params(12))
    victim = engine.add([2] * 10, params(6))
    engine.run_until_idle()
    assert victim.num_preemptions > 0
    why = engine.record.why(victim.id)
    assert why.main == "preempted"
    assert f"its blocks went to {first.id}" in why.sentence
    assert first.id in set(why.responsible["request_id"])


def test_slow_decoding_beside_the_prompts_of_others_names_them_and_the_steps():
    engine = stage(num_blocks=64, max_num_batched_tokens=32)
    victim = engine.add([1] * 4, params(12))
    for _ in range(4):
        engine.step()
    other = engine.add([2] * 90, params(1))
    engine.run_until_idle()
    why = engine.record.why(victim.id)
    assert why.main == "beside"
    assert f"because steps 4-6 also computed the prompt of {other.id} (90 tokens)" in why.sentence
    assert why.causes.set_index("part").loc["beside", "seconds"] == pytest.approx(0.09, abs=0.02)


def test_with_nothing_in_its_way_it_is_its_own_work():
    engine = stage(num_blocks=64, max_num_batched_tokens=256)
    alone = engine.add([1] * 200, params(2))
    engine.run_until_idle()
    why = engine.record.why(alone)
    assert why.main == "prefill"
    assert "Computing 200 tokens of its prompt" in why.sentence
    assert why.responsible.empty


def test_shares_add_up_to_the_whole():
    engine = stage(num_blocks=8, max_num_seqs=2)
    for i in range(5):
        engine.add([i + 1] * 9, params(6))
    engine.run_until_idle()
    for name in engine.record.requests["request_id"]:
        assert engine.record.why(name).causes["share"].sum() == pytest.approx(1.0)


def test_it_is_found_by_every_name_it_has():
    engine = stage()
    origin = RequestOrigin("chatcmpl-9", "/v1/chat/completions", "mine/1")
    request = engine.add([1, 2], params(2), origin=origin)
    engine.run_until_idle()
    for name in (request.id, "chatcmpl-9", "mine/1", request, request.output):
        assert engine.record.why(name).request_id == request.id


def test_an_unknown_name_is_an_error_that_lists_the_latest():
    engine = stage()
    engine.add([1, 2], params(2), origin=RequestOrigin("cmpl-7", "/v1/completions"))
    with pytest.raises(UnknownRequest, match=r"req-0 \(cmpl-7\)"):
        engine.record.why("req-99")
    with pytest.raises(LookupError, match="none at all"):
        Record().why("req-0")


def test_a_request_that_still_waits_is_told_so_far():
    engine = stage(max_num_seqs=1)
    engine.add([1] * 4, params(12))
    victim = engine.add([2] * 4, params(1))
    for _ in range(5):
        engine.step()
    why = engine.record.why(victim.id)
    assert why.main == "seqs"
    assert "is still waiting after" in why.sentence


def test_it_is_drawn_in_text_and_in_html_without_what_users_wrote_as_markup():
    engine = stage(max_num_seqs=1)
    engine.add([1] * 4, params(12))
    engine.add([2] * 4, params(4))
    engine.run_until_idle()
    why = engine.record.why("req-1")
    text, html = repr(why), why._repr_html_()
    assert text.startswith("req-1 got its first token after")
    assert "ssss" in text
    assert html.count("<svg") == 1
    assert COLOURS["wait_seqs"] in html
    assert "currentColor" in html
    assert "background:white" not in html


def test_it_goes_to_another_process_and_back():
    engine = stage(max_num_seqs=1)
    engine.add([1] * 4, params(12))
    engine.add([2] * 4, params(4))
    engine.run_until_idle()
    why = engine.record.why("req-1")
    back = why_from_json(why_to_json(why))
    assert back.sentence == why.sentence
    for name in ("causes", "spans", "responsible", "batch"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(why, name))


@pytest.mark.slow
def test_over_two_thousand_requests_it_answers_at_once():
    record = crowd(num_requests=2_000, num_tokens=100)
    record.why("req-0")
    times_s = []
    for name in ["req-1000"] * 5:
        start_s = time.process_time()  # whatever else the machine does
        record.why(name)
        times_s.append(time.process_time() - start_s)
    assert min(times_s) < 0.1


def _hold_the_interpreter(seconds: float, first: Callable[[], object]) -> None:
    """Keep the lock in one long call of C, as pandas or a regular expression can."""
    first()  # on the same thread: another one would have to wait for the lock itself
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        sum(range(3_000_000))


def make_busy_engine() -> Engine:
    """An engine on wall time."""
    config = EngineConfig(
        cache=CacheConfig(num_blocks=16, block_size=4),
        scheduler=SchedulerConfig(max_model_len=64, max_num_seqs=4, max_num_batched_tokens=16),
    )
    return Engine(LedgerRunner(4), config, clock=WallClock(), recorder=Record())
