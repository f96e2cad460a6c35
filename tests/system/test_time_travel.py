"""The real model goes back and on to the same tokens and blocks, in batch-invariant mode."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.engine.pasts import Act, Run, pick
from toolkit import LLM, PoolingParams, Record, SamplingParams
from toolkit.engine import POLICIES, Engine
from toolkit.errors import EngineError

FORM = "[a-z ]{4,20}[.]"
TEXTS = ["The red dog", "The red dog is in the garden. It", "A bird", "Numbers: 1, 2,"]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(
        batch_invariant=True,
        num_kv_blocks=24,
        block_size=8,
        max_model_len=96,
        max_num_seqs=6,
        max_num_batched_tokens=24,
    ) as llm:
        # So that it is compiled: how long that takes is nothing that comes out the same.
        llm.generate("A", SamplingParams(max_tokens=2, structured_outputs={"regex": FORM}))
        yield llm


def random_params(rng: random.Random) -> SamplingParams:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.3, "top_p": 0.9},
        {"temperature": 1.0, "n": 3},
        {"temperature": 0.9, "presence_penalty": 1.5, "frequency_penalty": 0.7},
        {"temperature": 1.0, "repetition_penalty": 1.4, "logprobs": 2},
        {"temperature": 1.0, "structured_outputs": {"regex": FORM}},
        {"temperature": 1.2, "stop": ["a", "."], "prompt_logprobs": 1},
    ]
    return SamplingParams(max_tokens=rng.randint(1, 16), ignore_eos=True, **rng.choice(kinds))


def random_act(rng: random.Random, engine: Engine) -> Act | None:
    name = pick(rng, engine)
    kind = rng.randrange(10)
    if kind < 6 and len(engine.scheduler.unfinished) < 12:
        prompt = rng.choice(TEXTS) + " " + rng.choice(["cat", "tree", "and then", "of"])
        params, priority = random_params(rng), rng.randrange(3)
        return lambda e: e.add(prompt, params, priority=priority)
    if kind == 6:
        policy = rng.choice([*POLICIES])
        return lambda e: e.set_policy(policy)
    if kind == 7 and name is not None:
        return lambda e: e.abort(name)
    if kind == 8 and name is not None:
        urgency = rng.randrange(3)
        return lambda e: e.change(name, priority=urgency)
    if kind == 9:
        return lambda e: e.add(TEXTS[1], PoolingParams(pooling="mean"))
    return None


def go_back_and_on(llm: LLM, seed: int, num_steps: int) -> None:
    rng = random.Random(seed)
    engine = llm.engine
    start = engine.scheduler.next_step
    run = Run(engine, first_step=start)
    for _ in range(num_steps):
        for _ in range(rng.choice([0, 0, 1, 2])):
            act = random_act(rng, engine)
            if act is not None:
                run.do(act)
        run.step()
    step = start + rng.randrange(num_steps)
    run.go_back(step)
    run.repeat(step)
    engine.run_until_idle()


@pytest.mark.parametrize("seed", range(6))
def test_random_runs_of_the_model_go_back_and_on(llm: LLM, seed: int):
    go_back_and_on(llm, seed, num_steps=14)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_a_hundred_random_runs_of_the_model_go_back_and_on(llm: LLM, seed: int):
    go_back_and_on(llm, seed, num_steps=30)


def test_keys_and_values_are_the_same_bits(llm: LLM):
    engine = llm.engine
    engine.run_until_idle()
    for text in TEXTS:
        engine.add(text, SamplingParams(max_tokens=12, seed=1, ignore_eos=True))
    for _ in range(5):
        engine.step()
    step = engine.scheduler.next_step
    before = [(k.clone(), v.clone()) for k, v in engine.runner.storage.layers]
    blocks = sorted({block for table in engine.cache.tables.values() for block in table})
    engine.run_until_idle()
    engine.add(" ".join(TEXTS), SamplingParams(max_tokens=30))
    engine.run_until_idle()
    with torch.inference_mode():
        for keys, values in engine.runner.storage.layers:
            keys.zero_()
            values.zero_()
    engine.rewind(step)
    assert sorted({b for table in engine.cache.tables.values() for b in table}) == blocks
    for request in engine.scheduler.running:
        for position in range(request.num_computed_tokens):
            size = engine.cache.block_size
            block = engine.cache.table(request.id)[position // size]
            for old, new in zip(before, engine.runner.storage.layers, strict=True):
                for was, now in zip(old, new, strict=True):
                    at = (block, slice(None), position % size)
                    assert torch.equal(was[at], now[at])
    engine.run_until_idle()


def test_a_changed_temperature_changes_what_follows_and_nothing_before(llm: LLM):
    engine = llm.engine
    engine.run_until_idle()
    request = engine.add(
        "The red dog", SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    )
    start = engine.scheduler.next_step
    engine.run_until_idle()
    plain, text = request.output_token_ids, request.output.text
    engine.rewind(start + 4)
    assert request.output_token_ids == plain[:4]
    assert text.startswith(request.output.text)
    engine.change(request, params=replace(request.params, temperature=5.0))
    engine.run_until_idle()
    assert request.output_token_ids[:4] == plain[:4]
    assert request.output_token_ids != plain


def test_a_parameter_changed_in_the_middle_holds_from_the_next_token_on(llm: LLM):
    engine = llm.engine
    engine.run_until_idle()
    request = engine.add("The red dog", SamplingParams(max_tokens=12, seed=8, ignore_eos=True))
    for _ in range(4):
        engine.step()
    only = replace(request.params, allowed_token_ids=[7])
    engine.change(request, params=only)
    engine.run_until_idle()
    assert request.output_token_ids[4:] == [7] * 8
    assert request.output_token_ids[:4] != [7] * 4


def alike(one: Record, other: Record) -> None:
    for table in ("steps", "chunks", "requests", "tokens", "blocks", "events"):
        a, b = getattr(one, table), getattr(other, table)
        kept = [name for name in a.columns if not name.endswith("_s")]
        pd.testing.assert_frame_equal(a[kept], b[kept], obj=table)


def test_a_saved_run_of_the_model_is_replayed_in_every_column(llm: LLM, tmp_path: Path):
    engine = llm.engine
    engine.run_until_idle()
    rng = random.Random(5)
    for _ in range(20):
        act = random_act(rng, engine)
        if act is not None:
            act(engine)
        engine.step()
    engine.run_until_idle()
    record = engine.record.freeze()
    alike(record, record.replay())
    loaded = Record.load(record.save(tmp_path / "run"))
    alike(record, loaded.replay(llm))
    assert record.diff(loaded) is None


def test_a_twin_of_a_served_model_leaves_it_alone(llm: LLM):
    engine = llm.engine
    engine.run_until_idle()
    params = SamplingParams(max_tokens=30, seed=3, ignore_eos=True)
    plain = [llm.generate(text, params)[0].outputs[0].token_ids for text in TEXTS]
    step = engine.scheduler.next_step
    requests = [engine.add(text, params) for text in TEXTS]
    engine.start()
    while engine.scheduler.next_step < step + 6:
        time.sleep(0.001)
    twin = engine.record.engine_at(step + 4)
    twin.scheduler.policy = "shortest-first"
    copies = [twin.scheduler.get(request.id) for request in requests]
    twin.run_until_idle()
    for copy, tokens in zip(copies, plain, strict=True):
        assert copy is None or tuple(copy.output_token_ids) == tokens
    twin.close()
    engine.stop()
    engine.run_until_idle()
    assert [tuple(request.output_token_ids) for request in requests] == plain


def test_where_two_runs_part_the_margin_is_recomputed(llm: LLM):
    engine = llm.engine
    engine.run_until_idle()
    request = engine.add("The red dog", SamplingParams(max_tokens=9, seed=4, ignore_eos=True))
    start = engine.scheduler.next_step
    engine.run_until_idle()
    past = engine.rewind(start + 3)
    engine.change(request, params=replace(request.params, temperature=6.0))
    engine.run_until_idle()
    found = past.diff(engine.record, llm)
    assert found is not None
    assert found.request_id == request.id
    assert found.index >= 3
    assert found.margin_source == "recomputed"
    assert found.margin_nats is not None


def test_a_record_goes_on_under_its_own_settings_whatever_those_of_the_model_are(
    llm: LLM, tmp_path: Path
):
    start = llm.engine.scheduler.next_step
    with llm.engine.record.during("crowd") as record:
        params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
        llm.generate([f"{text} {i}" for text in TEXTS for i in range(2)], params)
    loaded = Record.load(record.save(tmp_path / "run"))
    small: dict[str, Any] = {"num_kv_blocks": 8, "block_size": 16, "max_num_seqs": 1}
    with LLM(batch_invariant=True, max_model_len=96, **small) as other:
        engine = loaded.engine_at(start + 4, other)
        assert engine.scheduler.num_running > 1
        engine.run_until_idle()
        found = engine.record.where(request_id=list(record.requests["request_id"])).tokens
        engine.close()
    wanted = ["request_id", "index", "token_id"]
    pd.testing.assert_frame_equal(found[wanted], record.tokens[wanted])


def test_a_model_that_was_loaded_for_shorter_sequences_is_refused(llm: LLM, tmp_path: Path):
    start = llm.engine.scheduler.next_step
    llm.generate("A", SamplingParams(max_tokens=2))
    loaded = Record.load(llm.engine.record.save(tmp_path / "run"))
    with (
        LLM(batch_invariant=True, max_model_len=32, num_kv_blocks=8) as other,
        pytest.raises(EngineError, match=r"LLM\(max_model_len=96\)"),
    ):
        loaded.engine_at(start, other)
