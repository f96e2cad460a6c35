"""A recorded run again: an engine at one of its steps, the whole run on a model, from a file."""

from __future__ import annotations

import gc
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolkit.engine.journal as journal_module
from tests.builders import expected_output, make_engine, params
from tests.engine.letters import Letters, letter
from tests.engine.pasts import Run, standing
from tests.engine.random_acts import random_act
from toolkit.engine import POLICIES, Engine
from toolkit.engine.journal import Journal
from toolkit.errors import EngineError
from toolkit.record import Record
from toolkit.simulate import diff, engine_at, replay

TABLES = ("steps", "chunks", "requests", "tokens", "blocks", "events")


def recorded_run(seed: int, num_steps: int, **options: Any) -> Run:
    rng = random.Random(seed)
    engine = make_engine(
        num_blocks=rng.choice([14, 20, 40]),
        block_size=2,
        max_model_len=26,
        max_num_seqs=rng.choice([2, 4, 8]),
        max_num_batched_tokens=rng.choice([3, 8, 32]),
        policy=rng.choice([*POLICIES]),
        asynchronous=rng.random() < 0.5,
        recorder=Record(level="blocks"),
        **options,
    )
    run = Run(engine)
    for _ in range(num_steps):
        for _ in range(rng.choice([0, 0, 1, 2])):
            act = random_act(rng, engine)
            if act is not None:
                run.do(act)
        run.step()
    return run


def assert_alike(one: Record, other: Record, *, but: str = "_s") -> None:
    """Every column of every table is the same, but for seconds."""
    for table in TABLES:
        a, b = getattr(one, table), getattr(other, table)
        kept = [name for name in a.columns if not name.endswith(but)]
        pd.testing.assert_frame_equal(a[kept], b[kept], obj=table)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, 25), data=st.data())
def test_an_engine_at_a_step_stands_and_goes_on_as_the_original_did(seed, num_steps, data):
    run = recorded_run(seed, num_steps)
    step = data.draw(st.integers(0, num_steps - 1))
    before = standing(run.engine, run.requests)
    twin = engine_at(run.engine.record, step)
    wanted = run.standings[step]
    requests = {entry.id: entry for entry in _requests(twin)}
    assert standing(twin, requests) == wanted
    history = run.engine.record.freeze()
    history.truncate(step)
    ended = set(history.requests["request_id"])
    assert [*twin.record.steps["step"]] == [*range(step)]
    assert_frames(history.tokens, twin.record.tokens)
    assert ended <= set(twin.record.requests["request_id"])
    twin.run_until_idle()
    assert standing(run.engine, run.requests) == before
    for request in _requests(twin):
        if request.beam is None and request.pooling is None and not request.error:
            output = expected_output(
                list(request.prompt_token_ids), request.num_output_tokens, request.sample_index
            )
            assert request.output_token_ids == output


def assert_frames(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other)


def _requests(engine: Engine) -> list[Any]:
    return [
        sample for entry in engine.journal if hasattr(entry, "samples") for sample in entry.samples
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, 25))
def test_a_replayed_run_has_the_same_tables(seed, num_steps):
    run = recorded_run(seed, num_steps)
    again = replay(run.engine.record)
    assert_alike(run.engine.record, again)
    assert diff(run.engine.record, again) is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, 25), data=st.data())
def test_a_saved_run_can_be_looked_at_step_by_step_without_a_model(
    tmp_path_factory, seed, num_steps, data
):
    run = recorded_run(seed, num_steps)
    path = run.engine.record.save(tmp_path_factory.mktemp("runs") / "run.record")
    loaded = Record.load(path)
    step = data.draw(st.integers(0, num_steps))
    engine = engine_at(loaded, step)
    while engine.scheduler.next_step < num_steps:
        number = engine.scheduler.next_step
        report = engine.step()
        assert report.step == number
    assert_alike(run.engine.record, engine.record.freeze())
    with pytest.raises(EngineError, match=f"the recording ends before step {num_steps}"):
        engine.step()


def test_a_journal_is_the_same_after_a_file():
    run = recorded_run(7, 25)
    values = json.loads(json.dumps(run.engine.journal.to_json()))
    assert json.loads(json.dumps(Journal.from_json(values).to_json())) == values


def test_a_run_with_stop_strings_can_be_looked_at_without_a_tokenizer(tmp_path: Path):
    engine = make_engine(text=Letters(), recorder=Record(token_text=letter))
    free = engine.add("ABC", params(9))
    engine.run_until_idle()
    stop = free.output.text[2:4]
    request = engine.add("ABC", params(9, stop=[stop]))
    engine.run_until_idle()
    assert request.stop_reason == stop
    engine_again = engine_at(Record.load(engine.record.save(tmp_path / "run")), 0)
    for _ in range(engine.scheduler.next_step):
        engine_again.step()
    assert_alike(engine.record, engine_again.record.freeze())


def test_an_engine_at_a_step_of_a_served_one_leaves_it_alone():
    engine = make_engine(num_blocks=64, recorder=Record())
    requests = [engine.add([i, i + 1], params(40)) for i in range(4)]
    engine.start()
    twins = [engine_at(engine.record, step) for step in range(3)]
    for twin in twins:
        twin.scheduler.policy = "shortest-first"
        twin.run_until_idle()
        twin.close()
    engine.stop()
    engine.run_until_idle()
    for i, request in enumerate(requests):
        assert request.output_token_ids == expected_output([i, i + 1], 40)
    engine.close()


def test_a_record_whose_engine_is_gone_is_shown_without_a_model():
    engine = make_engine(recorder=Record())
    engine.add([1, 2, 3], params(4))
    engine.run_until_idle()
    record = engine.record.freeze()
    engine.close()
    del engine
    gc.collect()
    shown = engine_at(record, 2)
    assert shown.step().step == 2
    with pytest.raises(EngineError, match="is gone: give llm="):
        replay(record)


def test_code_that_a_file_does_not_have_is_named(tmp_path: Path):
    def newest(request: Any, view: Any) -> int:
        return -request.arrival_index

    engine = make_engine(recorder=Record(), policy=newest)
    engine.add([1], params(2, logits_processors=[lambda logits, at: None]))
    engine.run_until_idle()
    loaded = Record.load(engine.record.save(tmp_path / "run"))
    assert set(loaded.journal["lost_code"]) == {"req-0", "policy"}
    with pytest.raises(EngineError, match="policy 'newest' that is code"):
        engine_at(loaded, 0)


def test_a_frozen_record_keeps_its_own_past():
    engine = make_engine(recorder=Record())
    request = engine.add([1, 2], params(6))
    engine.run_until_idle()
    past = engine.rewind(2)
    assert past.steps["step"].max() == 5
    engine.change(request, priority=3)
    engine.run_until_idle()
    assert engine_at(past, 5).scheduler.get("req-0").priority == 0
    assert engine_at(engine.record, 5).scheduler.get("req-0").priority == 3


def test_a_rewound_record_goes_on_as_if_nothing_had_been():
    engine = make_engine(recorder=Record(level="blocks"), num_blocks=20, max_num_seqs=2)
    for i in range(4):
        engine.add([i, 1, 2, 3, 4], params(6))
    engine.run_until_idle()
    past = engine.rewind(4)
    assert engine.record.steps["step"].max() == 3
    engine.run_until_idle()
    assert_alike(past, engine.record)


@pytest.mark.parametrize(("seed", "step"), [(3, 7), (10, 18), (14, 3)])
def test_a_run_that_went_back_and_on_is_replayed_in_every_column(seed: int, step: int):
    run = recorded_run(seed, 20)
    run.go_back(step)  # in a step that somebody waits in, as in the one before
    run.repeat(step)
    assert_alike(run.engine.record, replay(run.engine.record))


def test_a_run_whose_journal_began_later_is_replayed_from_there(monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_TOKENS", 30)
    engine = make_engine(num_blocks=40, max_model_len=40, recorder=Record())
    for i in range(6):
        engine.clock.advance(0.001)
        engine.add([*range(10), i], params(4))
        engine.run_until_idle()
    assert engine.journal.first_step > 0
    assert_alike(engine.record, replay(engine.record))


class TestDivergence:
    def test_the_first_different_token_and_what_went_in(self):
        runs = []
        for policy in ("fcfs", "priority"):
            engine = make_engine(max_num_seqs=1, policy=policy, recorder=Record())
            engine.add([1, 2], params(3), priority=2)
            engine.add([3, 4], params(3), priority=1)
            engine.run_until_idle()
            runs.append(engine.record)
        assert diff(*runs) is None  # the order is no difference of tokens

    def test_a_changed_seed_is_named_first(self):
        engine = make_engine(recorder=Record())
        engine.add([1, 2, 3], params(5))
        engine.add([4, 5, 6], params(5))
        engine.run_until_idle()
        other = make_engine(recorder=Record(), max_num_batched_tokens=4)
        other.add([1, 2, 3], params(5))
        other.add([4, 5, 7], params(5))
        other.run_until_idle()
        found = diff(engine.record, other.record)
        assert found is not None
        assert (found.request_id, found.index, found.step) == ("req-1", 0, 0)
        assert found.margin_source == "unknown"
        assert found.first_input is not None
        assert found.first_input.what == "prompt"
        assert "req-1 differs first at output token 0" in repr(found)
        assert "<table" in found._repr_html_()

    def test_a_request_that_failed_in_one_run_is_said_to_have(self):
        engine, other = (make_engine(recorder=Record()) for _ in range(2))
        for each in (engine, other):
            each.add([1, 2, 3], params(5))
            each.step()
        other.runner.fail_requests.add("req-0")
        for each in (engine, other):
            each.run_until_idle()
        for found in (diff(engine.record, other.record), diff(other.record, engine.record)):
            assert found is not None
            assert "no token (the request failed: " in repr(found)
            assert "step None" not in repr(found)
            assert "arithmetic" not in repr(found) + found._repr_html_()

    def test_what_is_no_record_is_refused(self):
        with pytest.raises(EngineError, match="NoneType is no record"):
            diff(Record(), None)
        with pytest.raises(EngineError, match="int is no record"):
            replay(3)

    def test_runs_without_a_common_request_are_refused(self):
        engine = make_engine(recorder=Record())
        engine.add([1], params(1))
        engine.run_until_idle()
        with pytest.raises(EngineError, match="no request in common"):
            diff(engine.record, make_engine(recorder=Record()).record)


class Wrapped:
    """What an LLM is to a replay."""

    def __init__(self, model_fingerprint: str) -> None:
        describe = {"model_fingerprint": model_fingerprint}.copy
        self.engine = make_engine(recorder=Record(level="blocks", describe=describe))


def test_a_loaded_run_is_replayed_on_the_same_model_and_on_no_other(tmp_path: Path):
    source = Wrapped("a").engine
    source.add([1, 2, 3], params(5, n=2))
    source.run_until_idle()
    loaded = Record.load(source.record.save(tmp_path / "run"))
    same = Wrapped("a")
    again = replay(loaded, same)
    assert_alike(source.record, again)
    engine = engine_at(loaded, 2, same)
    engine.run_until_idle()
    assert_alike(source.record, engine.record)
    assert same.engine.scheduler.next_step == 0
    with pytest.raises(EngineError, match="model_fingerprint: 'a' recorded, 'b' here"):
        engine_at(loaded, 2, Wrapped("b"))
