"""Requests that pool: planned, chunked, cached, preempted and ended like all others."""

from __future__ import annotations

import random
from math import isnan
from typing import Any

import pytest

from tests.builders import VOCAB_SIZE, expected_output, expected_vector, make_engine, params
from toolkit import PoolingParams, Record
from toolkit.engine import Engine, SchedulerView, StepPlan, StepResult
from toolkit.engine.events import Finished, Preempted, TokenSampled
from toolkit.errors import InvalidRequest, InvariantViolation, PromptTooLong
from toolkit.request import EmbeddingRequestOutput, Request, Status

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def assert_embedded(request: Request) -> None:
    output = request.embedding_output
    assert output.error is None
    assert request.status is Status.FINISHED
    assert str(request.finish_reason) == "stop"
    assert output.outputs.embedding == list(expected_vector(list(request.prompt_token_ids)))


def assert_all_free(engine: Engine) -> None:
    engine.scheduler.check()
    assert not engine.scheduler.has_work
    assert engine.cache.num_free_blocks == engine.cache.num_blocks


def test_a_request_that_pools_ends_with_its_prompt():
    engine = make_engine()
    sampled: list[TokenSampled] = []
    ends: list[Finished] = []
    engine.on(TokenSampled, sampled.append)
    engine.on(Finished, ends.append)
    request = engine.add(PROMPT, PoolingParams())
    assert not request.output.finished
    assert request.embedding_output.outputs.embedding == []
    report = engine.step()
    assert_embedded(request)
    assert isinstance(request.output, EmbeddingRequestOutput)
    assert request.output == request.embedding_output
    assert "embedding of 2 numbers" in repr(report)
    assert not sampled
    assert [(event.request_id, event.reason) for event in ends] == [(request.id, "stop")]
    assert request.num_output_tokens == 0
    assert_all_free(engine)


@pytest.mark.parametrize("budget", [1, 3, 4, 9, 10])
def test_a_prompt_may_come_in_chunks(budget: int):
    engine = make_engine(max_num_batched_tokens=budget)
    request = engine.add(PROMPT, PoolingParams(pooling="mean"))
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
    assert len(reports) == -(-len(PROMPT) // budget)
    assert not any(chunk.samples for report in reports for chunk in report.plan.chunks)
    assert_embedded(request)
    assert_all_free(engine)


def test_generation_and_pooling_share_steps_and_disturb_nothing():
    engine = make_engine()
    texts = [engine.add(PROMPT[:n], params(6)) for n in (3, 5)]
    vectors = [engine.add(PROMPT[:n], PoolingParams(pooling="mean")) for n in (4, 1)]
    report = engine.step()
    assert len(report.plan.chunks) == 4
    engine.run_until_idle()
    for request in vectors:
        assert_embedded(request)
    for request in texts:
        assert request.output_token_ids == expected_output(list(request.prompt_token_ids), 6)
    assert_all_free(engine)


@pytest.mark.parametrize(("pooling", "num_cached"), [("last", 8), ("mean", 0), ("cls", 0)])
def test_a_warm_cache_is_read_only_where_no_state_is_wanted(pooling: Any, num_cached: int):
    engine = make_engine()
    engine.add(PROMPT, params(1))
    engine.run_until_idle()
    request = engine.add(PROMPT, PoolingParams(pooling=pooling))
    engine.run_until_idle()
    assert request.output.num_cached_tokens == num_cached
    assert_embedded(request)
    later = engine.add(PROMPT, params(3))  # what pooling computed is as good as anybody's
    engine.run_until_idle()
    assert later.num_cached_tokens == 8
    assert later.output_token_ids == expected_output(PROMPT, 3)


def test_two_prompts_with_one_beginning_are_both_pooled_whole():
    engine = make_engine(max_num_batched_tokens=4)
    requests = [engine.add([*PROMPT, last], PoolingParams(pooling="mean")) for last in (7, 8)]
    engine.run_until_idle()
    for request in requests:
        assert_embedded(request)
        assert engine.runner.computed[request.id] == set(range(11))


class TwoAtATime:
    """A policy under which prompts take long, so that others can take their blocks meanwhile."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 2


def test_a_preempted_request_computes_each_position_and_reads_only_what_it_has_pooled():
    """Generating requests grow until the one that pools gives up its blocks, in mid-prompt."""
    engine = make_engine(num_blocks=8, max_num_seqs=4, policy=TwoAtATime())
    preempted: list[Preempted] = []
    engine.on(Preempted, preempted.append)
    draw = random.Random(0)
    old = [engine.add([draw.randrange(VOCAB_SIZE)], params(15)) for _ in range(2)]
    request = engine.add(draw.choices(range(VOCAB_SIZE), k=24), PoolingParams(pooling="mean"))
    engine.run_until_idle()
    assert [event.request_id for event in preempted] == [request.id]
    assert 0 < request.num_lost_tokens < 24
    assert request.num_pooled_tokens == 24
    assert engine.runner.computed[request.id] == set(range(24))
    assert_embedded(request)
    for other in old:
        assert other.output_token_ids == expected_output(list(other.prompt_token_ids), 15)
    assert_all_free(engine)


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_in_a_small_pool_ends_well(seed: int):
    draw = random.Random(seed)
    engine = make_engine(num_blocks=9, block_size=3, max_num_seqs=5, max_num_batched_tokens=7)
    shared = draw.choices(range(VOCAB_SIZE), k=9)
    requests = []
    for _ in range(25):
        start = shared[: draw.randrange(10)]
        prompt = start + draw.choices(range(VOCAB_SIZE), k=draw.randrange(1, 8))
        pooling = draw.choice(["last", "mean", "cls", None, None])
        how: Any = (
            params(draw.randrange(1, 9)) if pooling is None else PoolingParams(pooling=pooling)
        )
        requests.append(engine.add(prompt, how))
        if draw.random() < 0.5:
            engine.step()
    engine.run_until_idle()
    for request in requests:
        if request.pooling is None:
            expected = expected_output(list(request.prompt_token_ids), request.params.max_tokens)
            assert request.output_token_ids == expected
        else:
            assert_embedded(request)
        if request.pooling is not None and request.pooling.pooling == "mean":
            assert engine.runner.computed[request.id] == set(range(request.num_prompt_tokens))
    assert_all_free(engine)


def test_a_prompt_may_fill_the_context_which_one_that_generates_may_not():
    engine = make_engine(num_blocks=4, max_model_len=12)
    prompt = [*PROMPT, 1, 2]
    with pytest.raises(PromptTooLong, match="no room for an output token"):
        engine.add(prompt, params(1))
    request = engine.add(prompt, PoolingParams())
    engine.run_until_idle()
    assert_embedded(request)
    with pytest.raises(PromptTooLong, match="13 tokens; max_model_len=12 is less") as caught:
        engine.add([*prompt, 3], PoolingParams())
    assert caught.value.param == "prompt"
    assert_all_free(engine)


def test_abortion_in_mid_prompt_frees_everything():
    engine = make_engine(max_num_batched_tokens=4)
    request = engine.add(PROMPT, PoolingParams(pooling="mean"))
    engine.step()
    assert engine.abort(request)
    assert request.output.finished
    assert request.embedding_output.outputs.embedding == []
    assert str(request.finish_reason) == "abort"
    assert_all_free(engine)


def test_a_step_that_fails_takes_only_its_own_requests_along():
    engine = make_engine()
    engine.runner.fail_steps.add(0)
    failed = engine.add(PROMPT, PoolingParams())
    engine.run_until_idle()
    assert isinstance(failed.output.error, RuntimeError)
    later = engine.add(PROMPT, PoolingParams())
    engine.run_until_idle()
    assert_embedded(later)
    assert_all_free(engine)


def test_a_runner_that_returns_no_vector_is_found_out():
    engine = make_engine()
    run = engine.runner.run

    def forgetful(plan: StepPlan) -> StepResult:
        result = run(plan)
        return StepResult(tokens=result.tokens)

    engine.runner.run = forgetful
    request = engine.add(PROMPT, PoolingParams())
    engine.run_until_idle()
    assert isinstance(request.output.error, InvariantViolation)
    assert_all_free(engine)


def test_the_tables_show_a_request_without_output():
    engine = make_engine(recorder=Record())
    request = engine.add(PROMPT, PoolingParams(), tags={"tenant": "a"})
    engine.run_until_idle()
    (row,) = engine.record.requests.to_dict("records")
    assert row["request_id"] == request.id
    assert (row["num_prompt_tokens"], row["num_output_tokens"], row["max_tokens"]) == (10, 0, 0)
    assert (row["status"], row["finish_reason"]) == ("finished", "stop")
    assert isnan(row["ttft_s"])
    assert isnan(row["tpot_s"])
    assert row["e2e_s"] > 0
    assert row["tags.tenant"] == "a"
    assert len(engine.record.tokens) == 0
    assert list(engine.record.steps["num_finished"]) == [1]


def test_other_params_are_refused_by_name():
    engine = make_engine()
    with pytest.raises(InvalidRequest, match="params must be") as caught:
        engine.add(PROMPT, {"pooling": "last"})
    assert caught.value.param == "params"
