"""A record whose end is taken back is the one that would have been frozen then."""

from __future__ import annotations

import random
from dataclasses import replace

import pandas as pd
import pytest

from tests.builders import make_engine, params
from toolkit.engine import Engine, StepPlan, StepResult
from toolkit.record import Record


def some_run(seed: int) -> Engine:
    rng = random.Random(seed)
    engine = make_engine(
        recorder=Record(level="blocks"),
        num_blocks=rng.randint(6, 14),
        max_num_seqs=4,
        max_num_batched_tokens=8,
    )
    for _ in range(8):
        prompt = [rng.randrange(2) for _ in range(rng.randint(1, 14))]
        engine.add(prompt, params(rng.randint(1, 8), n=rng.choice([1, 1, 2])))
    return engine


def tell(engine: Engine) -> None:
    """Give every token facts, as a sampler does at the level "explain"."""
    run = engine.runner.run

    def explained(plan: StepPlan) -> StepResult:
        result = run(plan)
        ends = {chunk.request_id: chunk.end for chunk in plan.chunks}
        tokens = {
            name: tuple(token._replace(facts={"at": ends[name]}) for token in new)
            for name, new in result.tokens.items()
        }
        return replace(result, tokens=tokens)

    engine.runner.run = explained  # type: ignore[method-assign]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_left_is_what_there_was(seed: int):
    rng = random.Random(seed)
    whole = some_run(seed)
    whole.run_until_idle()
    step = rng.randrange(1, whole.step_number)
    past = whole.record.freeze()
    past.truncate(step)
    early = some_run(seed)
    early.run_until(lambda report: report.step == step - 1)
    then = early.record.freeze()
    for table in ("steps", "chunks", "tokens", "blocks", "events"):
        pd.testing.assert_frame_equal(getattr(past, table), getattr(then, table))
    has_ended = then.requests["finished_s"].notna()
    ended = then.requests[has_ended].reset_index(drop=True)
    pd.testing.assert_frame_equal(past.requests, ended, check_dtype=False)
    pd.testing.assert_frame_equal(past.blocks_at(step - 1), then.blocks_at(step - 1))


def test_taking_everything_back_leaves_empty_tables():
    engine = some_run(0)
    engine.run_until_idle()
    past = engine.record.freeze()
    past.truncate(0)
    assert all(len(getattr(past, table)) == 0 for table in past.tables if table != "events")
    assert engine.record.num_rows("steps") > 0
    assert past.generation == 1


def test_facts_go_with_their_tokens():
    engine = some_run(1)
    tell(engine)
    engine.run_until_idle()
    tokens = engine.record.tokens
    past = engine.record.freeze()
    past.truncate(6)
    known = {(t.request_id, t.position): t.step < 6 for t in tokens.itertuples()}
    assert {False, True} == set(known.values())
    for (name, position), is_kept in known.items():
        assert (past.facts(name, position) is not None) == is_kept
        assert engine.record.facts(name, position) == {"at": position}


def test_what_was_added_after_going_back_stays_when_going_back_there_once_more():
    engine = some_run(0)
    engine.run_until_idle()
    engine.rewind(3)
    first, second = engine.add([1, 2], params(3)), engine.add([3, 4], params(3))
    engine.abort(second)
    engine.run_until_idle()
    engine.rewind(3)
    events = engine.record.events
    for request in (first, second):
        added = events[(events["request_id"] == request.id) & (events["kind"] == "added")]
        assert added["step"].tolist() == [2]
    assert second.id in engine.record.requests["request_id"].tolist()
