"""Where a request's time went: the parts add up, whatever happened to it."""

from __future__ import annotations

import random
from concurrent.futures import Future
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import LedgerRunner, make_engine, params
from toolkit.beam_search_params import BeamSearchParams
from toolkit.clock import VirtualClock
from toolkit.engine import Engine, SchedulerView, StepPlan, StepResult
from toolkit.pooling_params import PoolingParams
from toolkit.record import Record
from toolkit.request import Request

PARTS = [
    *("tokenize_s", "wait_blocks_s", "wait_budget_s", "wait_seqs_s", "wait_policy_s"),
    *("wait_grammar_s", "wait_host_s", "prefill_s", "preempted_before_first_s", "emit_s"),
]


class UnevenRunner(LedgerRunner):
    """Steps of any length; whoever says so in a tag is prepared on another thread."""

    def __init__(self, block_size: int, clock: VirtualClock, rng: random.Random) -> None:
        super().__init__(block_size, clock)
        self.rng = rng

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        request.preparation = request.tags.get("preparation")

    def run(self, plan: StepPlan) -> StepResult:
        result = super().run(plan)
        assert self.clock is not None
        self.clock.advance(self.rng.random())
        return result


class Fickle:
    """Admits, serves and preempts whom it likes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def admit(self, request: Request, view: SchedulerView) -> bool:
        return self.rng.random() < 0.7

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return self.rng.randrange(5)

    def victim(self, candidates: Any, view: SchedulerView) -> Request:
        return self.rng.choice(list(candidates))


def add_something(engine: Engine, rng: random.Random) -> Request:
    prompt = [rng.randrange(3) for _ in range(rng.randint(1, 14))]
    tags: dict[str, Any] = {}
    if rng.random() < 0.15:
        tags["preparation"] = Future()
    asked: Any = params(rng.randint(1, 8), n=rng.choice([1, 1, 2, 3]))
    if rng.random() < 0.1:
        asked = BeamSearchParams(beam_width=2, max_tokens=rng.randint(1, 4))
    elif rng.random() < 0.1:
        asked = PoolingParams()
    arrival_s = engine.clock.now() - 0.01 - rng.random()
    return engine.add(prompt, asked, tags=tags, arrival_s=arrival_s, tokenize_s=0.01)


def mixed_run(seed: int) -> tuple[Engine, pd.DataFrame]:
    """Random requests on a small engine, with aborts, failures, pauses and idle hours."""
    rng = random.Random(seed)
    policy = rng.choice(["fcfs", "prefill-first", "decode-first", Fickle(rng)])
    engine = make_engine(
        recorder=Record(level="blocks"),
        num_blocks=rng.randint(6, 14),
        max_num_seqs=rng.randint(1, 5),
        max_num_batched_tokens=rng.randint(2, 12),
        policy=policy,
    )
    assert isinstance(engine.clock, VirtualClock)
    runner = UnevenRunner(4, engine.clock, rng)
    engine.runner = runner
    requests: list[Request] = []
    num_left = rng.randint(3, 10)
    while engine.scheduler.has_work or num_left:
        if num_left and rng.random() < 0.4:
            requests.append(add_something(engine, rng))
            num_left -= 1
        engine.clock.advance(rng.choice([0.0, rng.random(), 50.0 * (rng.random() < 0.1)]))
        for request in requests:
            preparation = request.preparation
            if preparation is not None and not preparation.done() and rng.random() < 0.3:
                preparation.set_result(None)
        if rng.random() < 0.03:
            engine.abort(rng.choice(requests)) if requests else None
        if rng.random() < 0.02 and requests:
            runner.fail_requests.add(rng.choice(requests).id)
        if engine.scheduler.has_work:
            engine.step()
    return engine, engine.record.requests


def check_parts(table: pd.DataFrame) -> None:
    parts_s = table[PARTS].sum(axis=1)
    first = table["first_token_s"].notna()
    assert np.allclose(parts_s[first], table["ttft_s"][first], rtol=0, atol=1e-6)
    assert np.allclose(parts_s[~first], table["e2e_s"][~first], rtol=0, atol=1e-6)
    after_s = table["preempted_s"] - table["preempted_before_first_s"]
    whole_s = table["ttft_s"] + table["decode_s"] + after_s
    assert np.allclose(whole_s[first], table["e2e_s"][first], rtol=0, atol=1e-6)
    assert (table[PARTS].min() > -1e-9).all()
    assert (table["decode_s"][first] > -1e-9).all()
    assert (after_s > -1e-9).all()


@pytest.mark.slow
@given(st.integers(0, 10**9))
def test_the_parts_add_up_to_the_time_to_the_first_token(seed: int):
    _, table = mixed_run(seed)
    assert table["finished_s"].notna().all()
    check_parts(table)


def test_random_runs_meet_every_kind_of_part():
    tables = pd.concat([mixed_run(seed)[1] for seed in range(40)])
    check_parts(tables)
    met = tables[[*PARTS, "preempted_s"]].max()
    assert (met.drop("emit_s") > 0).all(), met  # emitting takes no virtual time


def rebuilt(record: Record) -> pd.DataFrame:
    """The same parts from the other tables alone, step by step, by the rules of the schema."""
    steps, chunks, events = record.steps, record.chunks, record.events
    ends_s = (steps["start_s"] + steps["duration_s"]).tolist()
    computed = {(c.step, c.request_id): c for c in chunks.itertuples()}
    losses = {(e.step, e.request_id) for e in events[events.kind == "preempted"].itertuples()}
    waits = {(e.step, e.request_id): e.detail for e in events[events.kind == "waited"].itertuples()}
    rows = []
    for request in record.requests.itertuples():
        row: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        until_s = request.first_token_s
        at_s = request.queued_s
        row["wait_host_s"] += request.queued_s - request.arrival_s - request.tokenize_s
        row["tokenize_s"] = request.tokenize_s
        own, lost, is_behind = None, 0, False
        for step, start_s, end_s in zip(steps["step"], steps["start_s"], ends_s, strict=True):
            if start_s < request.queued_s or end_s > until_s:
                continue
            chunk = computed.get((step, request.request_id))
            row["preempted_before_first_s" if is_behind else "wait_host_s"] += start_s - at_s
            at_s = end_s
            if (step, request.request_id) in losses:
                is_behind = True
            own = waits.get((step, request.request_id), own)
            if is_behind and chunk is not None and chunk.start >= lost:
                is_behind = False
            if is_behind:
                row["preempted_before_first_s"] += end_s - start_s
                is_behind = chunk is None or chunk.end < lost
            elif chunk is not None:
                row["prefill_s"] += end_s - start_s
            else:
                limited_by = steps["limited_by"][step]
                cause = limited_by if own in (None, "line") else own
                cause = {"none": "host", "sibling": "policy"}.get(cause, cause)
                row[f"wait_{cause}_s"] += end_s - start_s
            if chunk is not None:
                own, lost = None, max(lost, chunk.end)
        row["emit_s"] = until_s - at_s
        rows.append(row)
    return pd.DataFrame(rows, index=record.requests.index)


@pytest.mark.parametrize("seed", range(30))
def test_each_part_can_be_found_again_in_the_other_tables(seed: int):
    engine, table = mixed_run(seed)
    for name, part in rebuilt(engine.record).items():
        known = table["first_token_s"].notna() & (table["num_preemptions"] == 0)
        assert np.allclose(part[known], table[name][known], rtol=0, atol=1e-6), name


def test_prefill_is_whole_steps_and_gaps_between_them_are_the_hosts():
    engine = make_engine(recorder=Record(), max_num_batched_tokens=4)
    engine.add([1] * 10, params(2))
    for _ in range(3):
        engine.clock.advance(0.5)
        engine.step()
    row = engine.record.requests.iloc[0]
    assert row["prefill_s"] == pytest.approx(0.03)
    assert row["wait_host_s"] == pytest.approx(1.5)
    assert row["ttft_s"] == pytest.approx(1.53)


class NotTheSecond:
    """Gives the second request nothing while the first runs, once it has begun."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        is_held = request.arrival_index == 1 and request.num_computed_tokens > 0
        return 0 if is_held and len(view.running) > 1 else min(budget, 2)


def test_running_without_a_chunk_is_waiting_and_events_say_for_what():
    engine = make_engine(recorder=Record(), policy=NotTheSecond())
    engine.add([1, 2, 3], params(3))
    second = engine.add([4, 5, 6], params(1))
    engine.run_until_idle()
    waited_s = second.first_token_s - second.arrival_s - second.prefill_s
    assert second.waits_s["policy"] == pytest.approx(waited_s)
    assert waited_s > 0.01
    events = engine.record.events
    told = events[(events["kind"] == "waited") & (events["request_id"] == second.id)]
    assert told["detail"].tolist() == ["policy"]


def test_preempted_before_the_first_token_counts_until_it_has_caught_up():
    engine = make_engine(recorder=Record(), num_blocks=4, block_size=2, max_num_batched_tokens=3)
    first = engine.add([1, 2], params(6))
    second = engine.add([3, 4, 5, 6, 7], params(1))
    engine.run_until_idle()
    assert (first.num_preemptions, second.num_preemptions) == (0, 1)
    row = engine.record.requests.iloc[1]
    assert row["preempted_before_first_s"] > 0.01
    check_parts(engine.record.requests)
