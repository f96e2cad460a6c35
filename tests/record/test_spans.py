"""Spans: they follow on one another and add up to the ledger, whatever happened to a request."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import LedgerRunner, make_engine, params
from tests.engine.beam_worlds import Moody
from toolkit.clock import VirtualClock
from toolkit.engine import Engine
from toolkit.engine.plan import StepPlan, StepResult
from toolkit.errors import InvalidParameter
from toolkit.record import Record
from toolkit.record.slots import LONG_GAP_S
from toolkit.request import WAIT_CAUSES, BeamSearchParams, Request


class UnevenRunner(LedgerRunner):
    """Steps of varying length, and grammars that somebody compiles elsewhere."""

    def __init__(self, block_size: int, clock: VirtualClock, seed: int) -> None:
        super().__init__(block_size, clock)
        self._random = random.Random(seed)

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        request.preparation = request.tags.get("preparation")

    def run(self, plan: StepPlan) -> StepResult:
        assert self.clock is not None
        self.clock.advance(self._random.choice((0.0, 0.001, 0.02)))
        return super().run(plan)


def mixed_run(seed: int) -> Engine:
    """An engine after a run in which anything may have happened to any request."""
    dice = random.Random(seed)
    engine = make_engine(
        num_blocks=dice.choice((8, 12, 40)),
        max_num_seqs=dice.choice((2, 4, 8)),
        max_num_batched_tokens=dice.choice((4, 9, 32)),
        policy=dice.choice(("fcfs", "shortest-first", Moody(seed))),
        recorder=Record(),
    )
    assert isinstance(engine.clock, VirtualClock)
    engine.runner = UnevenRunner(engine.config.cache.block_size, engine.clock, seed)
    engine.clock.advance(1.0)
    pending: list[Future[None]] = []
    requests: list[Request] = []
    for _ in range(dice.randint(2, 9)):
        engine.clock.advance(dice.choice((0.0, 0.001, 0.004, LONG_GAP_S * 2)))
        prompt = [dice.choice((1, 2, dice.randint(3, 40)))] * dice.randint(1, 24)
        tags = {}
        if dice.random() < 0.2:
            pending.append(Future())
            tags["preparation"] = pending[-1]
        wanted: Any = params(dice.randint(1, 8), n=dice.choice((1, 1, 1, 2)))
        if dice.random() < 0.1 and not tags:
            wanted = BeamSearchParams(beam_width=2, max_tokens=3)
        arrival_s = engine.clock.now()
        engine.clock.advance(tokenize_s := dice.choice((0.0, 0.0, 0.002)))
        requests.append(
            engine.add(prompt, wanted, tags=tags, arrival_s=arrival_s, tokenize_s=tokenize_s)
        )
        for _ in range(dice.randint(0, 4)):
            if engine.scheduler.has_work:
                engine.step()
                engine.clock.advance(dice.choice((0.0, 0.0, 0.002, LONG_GAP_S * 3)))
        if dice.random() < 0.15:
            engine.abort(dice.choice(requests).id)
        if pending and dice.random() < 0.5:
            pending.pop().set_result(None)
    for future in pending:
        future.set_result(None)
    engine.run_until_idle()
    assert all(request.error is None for request in requests), "nothing here goes wrong by itself"
    return engine


@settings(max_examples=150)
@given(st.integers(0, 10_000))
def test_spans_follow_on_one_another_and_add_up_to_the_ledger(seed: int):
    record: Record = mixed_run(seed).record
    requests, spans = record.requests, record.spans()
    # Who was aborted at once has lived for no time.
    requests = requests[requests["finished_s"] > requests["arrival_s"]]
    assert list(spans["request_id"].drop_duplicates()) == list(
        requests.sort_values("arrival_s", kind="stable")["request_id"]
    )
    for row in requests.itertuples():
        own = spans[spans["request_id"] == row.request_id].reset_index(drop=True)
        assert own["start_s"].iloc[0] == pytest.approx(row.arrival_s, abs=1e-9)
        assert own["end_s"].iloc[-1] == pytest.approx(row.finished_s, abs=1e-9)
        assert own["start_s"].iloc[1:].to_numpy() == pytest.approx(own["end_s"].iloc[:-1], abs=1e-9)
        assert (own["gap_s"] >= 0).all()
        if row.first_token_s == row.first_token_s:
            assert ledger_of(own, row.first_token_s) == pytest.approx(
                {name: getattr(row, name) for name in LEDGER}, abs=1e-6
            )


LEDGER = (
    "tokenize_s",
    *(f"wait_{cause}_s" for cause in WAIT_CAUSES),
    "prefill_s",
    "preempted_before_first_s",
    "emit_s",
)


def ledger_of(spans: pd.DataFrame, first_token_s: float) -> dict[str, float]:
    """The parts of a time to first token, added up from spans."""
    early = spans[spans["start_s"] < first_token_s]
    found = dict.fromkeys(LEDGER, 0.0)
    for span in early.itertuples():
        name = f"wait_{span.cause}_s" if span.kind == "wait" else f"{span.kind}_s"
        name = {"preempted_s": "preempted_before_first_s"}.get(name, name)
        found[name] += span.end_s - span.start_s - span.gap_s
        found["wait_host_s"] += span.gap_s
    return found


def simple_record() -> Record:
    engine = make_engine(max_num_batched_tokens=4, max_num_seqs=1, recorder=Record())
    engine.add([1] * 6, params(3))
    engine.add([2] * 3, params(1))
    engine.run_until_idle()
    record: Record = engine.record
    return record


def test_a_prompt_has_a_row_per_chunk_and_decoding_one_row():
    spans = simple_record().spans(["req-0"])
    assert list(spans["kind"]) == ["prefill", "prefill", "decode"]
    assert list(spans["num_tokens"]) == [4, 2, 2]
    assert list(spans["start_step"]) == [0, 1, 2]
    assert list(spans["end_step"]) == [0, 1, 3]


def test_a_wait_has_a_row_for_each_cause():
    spans = simple_record().spans(["req-1"])
    waits = spans[spans["kind"] == "wait"]
    assert list(waits["cause"]) == ["budget", "seqs"]
    assert list(waits["start_step"]) == [0, 1]
    assert waits["end_s"].to_numpy() == pytest.approx([0.01, 0.04])


def test_frozen_and_loaded_records_have_the_same_spans(tmp_path: Any):
    record: Record = mixed_run(7).record
    loaded = Record.load(record.save(tmp_path / "run.zip"))
    pd.testing.assert_frame_equal(record.freeze().spans(), record.spans())
    pd.testing.assert_frame_equal(loaded.spans(), record.spans())


def test_a_request_that_still_waits_has_spans_up_to_the_last_step():
    engine = make_engine(max_num_seqs=1, recorder=Record())
    engine.add([1], params(8))
    engine.add([2], params(1))
    for _ in range(3):
        engine.step()
    spans = engine.record.spans(["req-1"])
    assert list(spans["cause"]) == ["seqs"]
    assert spans["end_s"].iloc[0] == pytest.approx(0.03)


def test_requests_whose_beginning_is_cut_off_have_no_spans():
    record = simple_record()
    spans = record.between(0.015, 1.0).spans()
    assert list(spans["request_id"].unique()) == ["req-1"]


def test_without_chunks_there_is_an_error_that_says_which_level_has_them():
    engine = make_engine(recorder=Record(level="requests"))
    assert engine.record.spans().empty
    engine.add([1], params(1))
    engine.run_until_idle()
    with pytest.raises(InvalidParameter, match="tokens"):
        engine.record.spans()


@pytest.mark.slow
def test_two_thousand_requests_of_a_hundred_tokens_take_less_than_a_second():
    record = crowd(num_requests=2_000, num_tokens=100)
    best_s = min(_seconds(record.spans) for _ in range(3))
    assert len(record.spans()) < 40_000
    assert best_s < 1.0


def crowd(*, num_requests: int, num_tokens: int) -> Record:
    """A frozen record of many requests that arrive at once, as a large batch leaves it."""
    engine = make_engine(
        num_blocks=4_000,
        block_size=16,
        max_num_seqs=128,
        max_num_batched_tokens=2048,
        max_model_len=512,
        recorder=Record(),
    )
    engine.runner = ConstantRunner(engine.clock)
    generator = np.random.default_rng(0)
    for length in generator.integers(10, 300, num_requests):
        engine.add([1] * int(length), params(num_tokens))
    engine.scheduler.check = lambda: None  # type: ignore[method-assign]
    engine.run_until_idle()
    record: Record = engine.record
    return record.freeze()


class ConstantRunner:
    """Says the same token to everybody, at a hundredth of a second a step."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def prepare(self, request: Request) -> None: ...

    def run(self, plan: StepPlan) -> StepResult:
        from toolkit.engine import SampledToken

        self._clock.advance(0.01)
        return StepResult(
            tokens={c.request_id: (SampledToken(7),) for c in plan.chunks if c.samples}
        )

    def release(self, request_id: str) -> None: ...

    def close(self) -> None: ...


def _seconds(action: Any) -> float:
    start_s = time.perf_counter()
    action()
    return time.perf_counter() - start_s
