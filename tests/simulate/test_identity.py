"""Recorded durations fed back: the simulation comes out as the run did, or says where not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import make_engine
from tests.builders import params as letters
from toolkit.engine import POLICIES
from toolkit.errors import RecordError
from toolkit.llm import LLM
from toolkit.record import Record
from toolkit.request import SamplingParams
from toolkit.simulate import identity


def served(seed: int, **options) -> Record:
    """A run with bursts, idle times, common prefixes, little memory, a reset and a new policy."""
    rng = random.Random(seed)
    engine = make_engine(
        num_blocks=rng.choice([14, 20, 40]),
        block_size=2,
        max_model_len=26,
        max_num_seqs=rng.choice([2, 4, 8]),
        max_num_batched_tokens=rng.choice([3, 8, 32]),
        policy=rng.choice([*POLICIES]),
        recorder=Record(level="blocks"),
        **options,
    )
    beginnings = [[rng.randrange(50) for _ in range(10)] for _ in range(3)]
    for _ in range(rng.randrange(1, 4)):
        for _ in range(rng.randrange(1, 25)):
            for _ in range(rng.choice([0, 0, 1, 2])):
                prompt = rng.choice(beginnings)[: rng.randrange(1, 11)]
                prompt += [rng.randrange(50) for _ in range(rng.randrange(5))]
                engine.add(prompt, letters(rng.randrange(1, 10)), priority=rng.randrange(3))
            engine.step()  # idle ones too
            if rng.random() < 0.3:
                engine.clock.advance(rng.random())
        engine.run_until_idle()
        if rng.random() < 0.5:
            engine.reset_prefix_cache()
        if rng.random() < 0.5:
            engine.set_policy(rng.choice([*POLICIES]))
    engine.add([1, 2, 3], letters(2))
    engine.run_until_idle()
    return engine.record


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_run_and_its_simulation_are_identical(seed):
    record = served(seed)
    found = identity(record)
    assert found.is_identical, found
    assert (found.table["rows"] == found.table["identical"]).all()
    assert set(found.table.index) == {"chunks", "steps", "requests", "blocks"}


def test_a_saved_record_is_as_good_as_a_live_one(tmp_path):
    path = served(3).save(tmp_path / "run.zip")
    assert identity(Record.load(path)).is_identical


def test_a_part_of_a_run_is_compared_by_its_own_rows():
    record = served(5)
    half = record.steps["start_s"].iloc[record.num_rows("steps") // 2]
    part = record.between(half, float("inf"))
    found = identity(part)
    assert found.is_identical
    assert found.table.at["chunks", "rows"] == len(part.chunks) < len(record.chunks)


def test_another_schedule_is_told_apart():
    record = served(4).freeze()
    # As if the engine that is simulated were another one.
    record.config = {**record.config, "max_num_batched_tokens": 64, "max_num_seqs": 16}
    found = identity(record)
    assert not found.is_identical
    assert found.first_difference.startswith("chunks")
    assert "not identical" in repr(found)


@pytest.fixture(scope="module")
def llm():
    with LLM(num_kv_blocks=12, max_model_len=96, max_num_batched_tokens=48, seed=1) as llm:
        yield llm


@pytest.mark.slow
def test_a_real_run_with_preemptions_and_prefix_hits_is_identical(llm):
    rng = random.Random(0)
    engine = llm.engine
    engine.record.level = "blocks"
    common = [rng.randrange(3, 200) for _ in range(32)]
    for _ in range(12):
        for _ in range(rng.choice([0, 1, 3])):
            prompt = common[: rng.randrange(1, 33)] + [rng.randrange(3, 200) for _ in range(6)]
            may_end = rng.random() < 0.3  # by an end-of-sequence token
            params = SamplingParams(max_tokens=rng.randrange(8, 50), ignore_eos=not may_end)
            engine.add(prompt, params)
        for _ in range(rng.randrange(6)):
            engine.step()
    engine.run_until_idle()
    # An answer taken up again: its tokens have to be known for its blocks to be found.
    first = engine.add(common, SamplingParams(max_tokens=40, ignore_eos=True))
    engine.run_until_idle()
    engine.add([*common, *first.output_token_ids, 7], SamplingParams(max_tokens=4))
    engine.run_until_idle()
    # From a thread of its own, requests come while it runs.
    outputs = llm.generate([common[:20], common[:9]], SamplingParams(max_tokens=12), progress=False)
    assert len(outputs) == 2
    requests = engine.record.requests
    assert requests["num_preemptions"].sum() > 0
    assert requests["num_cached_tokens"].iloc[-3] >= 64
    found = identity(engine.record)
    assert found.is_identical, found


def test_what_is_no_load_is_refused():
    engine = make_engine(recorder=Record())
    engine.add([1, 2, 3], letters(3, n=2, temperature=1.0))
    with pytest.raises(RecordError, match="several samples"):
        identity(engine.record)
    engine = make_engine(recorder=Record())
    with pytest.raises(RecordError, match="nothing was computed"):
        identity(engine.record)
    request = engine.add([1, 2, 3], letters(8))
    engine.step()
    with pytest.raises(RecordError, match="not finished"):
        identity(engine.record)
    engine.abort(request)
    with pytest.raises(RecordError, match="Ended"):
        identity(engine.record)
