"""Requests that share a prefix and arrive together compute it once between them."""

from __future__ import annotations

import random

import pytest

from tests.builders import expected_output, make_engine, params
from toolkit.engine import POLICIES, Engine, SchedulerView
from toolkit.engine.events import PrefixHit
from toolkit.request import Request

BLOCK_SIZE = 4
NUM_SHARED = 32
NUM_OWN = 6
DRAW = random.Random(31)
SHARED = DRAW.choices(range(50), k=NUM_SHARED)
PROMPTS = [SHARED + DRAW.choices(range(50), k=NUM_OWN) for _ in range(6)]


class EightEach:
    """Two blocks of a prompt a step, to everybody."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 8


class SixEach:
    """A block and a half."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 6


class AQuarterEach:
    """Whole steps are shared by those that run, with no regard for blocks."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return max(BLOCK_SIZE, view.token_budget // 4)


def engine_of(policy: object, budget: int, num_blocks: int = 128, **kwargs: object) -> Engine:
    return make_engine(
        num_blocks=num_blocks,
        block_size=BLOCK_SIZE,
        policy=policy,
        max_num_batched_tokens=budget,
        **kwargs,
    )


def num_prompt_tokens_computed(engine: Engine) -> int:
    chunks = [chunk for plan in engine.runner.plans for chunk in plan.chunks]
    ends = [min(chunk.end, NUM_SHARED + NUM_OWN) - chunk.start for chunk in chunks]
    return sum(end for end in ends if end > 0)


@pytest.mark.parametrize("budget", [8, 30, 100, 1000])
@pytest.mark.parametrize("policy", [*POLICIES, EightEach])
def test_a_prefix_is_computed_once_by_all_who_arrive_with_it(policy: object, budget: int):
    engine = engine_of(policy, budget)
    requests = [engine.add(prompt, params(4)) for prompt in PROMPTS]
    engine.run_until_idle()
    for prompt, request in zip(PROMPTS, requests, strict=True):
        assert request.output_token_ids == expected_output(prompt, 4)
    # A step that ends inside a block leaves that block to whoever comes first.
    slack = (BLOCK_SIZE - 1) * len(engine.runner.plans) if policy is EightEach else 0
    ideal = NUM_SHARED + NUM_OWN * len(PROMPTS)
    assert ideal <= num_prompt_tokens_computed(engine) <= ideal + slack
    computed = num_prompt_tokens_computed(engine)
    assert computed + sum(request.num_cached_tokens for request in requests) == sum(
        request.num_prompt_tokens for request in requests
    )


def test_two_that_run_take_turns_at_their_prefix():
    engine = engine_of(EightEach, 100)
    first, second = (engine.add(prompt, params(2)) for prompt in PROMPTS[:2])
    chunks = [
        [(chunk.request_id, chunk.start, chunk.end) for chunk in engine.step().plan.chunks]
        for _ in range(2)
    ]
    assert chunks[0] == [(first.id, 0, 8), (second.id, 8, 16)]
    assert chunks[1] == [(first.id, 16, 24), (second.id, 24, 32)]


def test_the_hit_of_a_request_that_runs_is_an_event_and_counts_as_cached():
    engine = engine_of(EightEach, 100)
    hits: list[tuple[str, int]] = []
    engine.on(PrefixHit, lambda hit: hits.append((hit.request_id, hit.num_tokens)))
    first, second = (engine.add(prompt, params(2)) for prompt in PROMPTS[:2])
    engine.step()
    report = engine.step()
    assert hits == [(second.id, 8), (first.id, 8), (second.id, 8)]
    assert report.num_cached_tokens == 16
    assert (first.num_cached_tokens, second.num_cached_tokens) == (8, 16)


def test_a_block_that_was_begun_is_given_back_for_the_whole_one():
    engine = engine_of(SixEach, 100)
    first, second = (engine.add(prompt, params(2)) for prompt in PROMPTS[:2])
    engine.step()
    assert (first.num_computed_tokens, second.num_computed_tokens) == (6, 10)
    begun = engine.cache.table(first.id)[1]
    engine.step()
    assert engine.cache.table(first.id)[1] == engine.cache.table(second.id)[1] != begun
    assert first.num_computed_tokens == 8 + 6
    engine.run_until_idle()
    assert first.output_token_ids == expected_output(PROMPTS[0], 2)
    assert second.output_token_ids == expected_output(PROMPTS[1], 2)


def test_who_computes_the_prefix_may_be_aborted_while_others_count_on_it():
    engine = engine_of(EightEach, 100)
    requests = [engine.add(prompt, params(3)) for prompt in PROMPTS]
    engine.step()
    engine.abort(requests[0].id)
    engine.step()
    engine.abort(requests[1].id)
    engine.run_until_idle()
    for prompt, request in zip(PROMPTS[2:], requests[2:], strict=True):
        assert request.output_token_ids == expected_output(prompt, 3)


def test_who_computes_the_prefix_may_fail_in_the_step_in_which_others_read_it():
    engine = engine_of(EightEach, 100)
    requests = [engine.add(prompt, params(3)) for prompt in PROMPTS]
    engine.runner.fail_requests.add(requests[0].id)
    engine.run_until_idle()
    assert requests[0].error is not None
    for prompt, request in zip(PROMPTS[1:], requests[1:], strict=True):
        assert request.output_token_ids == expected_output(prompt, 3)


def test_a_step_that_broke_leaves_no_prefix_behind():
    engine = engine_of(EightEach, 100)
    engine.runner.fail_steps = {1}
    lost = [engine.add(prompt, params(3)) for prompt in PROMPTS]
    engine.run_until_idle()
    assert all(request.error is not None for request in lost)
    again = engine.add(PROMPTS[0], params(3))
    engine.run_until_idle()
    assert again.num_cached_tokens == 0
    assert again.output_token_ids == expected_output(PROMPTS[0], 3)


@pytest.mark.parametrize("num_blocks", range(11, 24))
def test_a_prefix_is_shared_and_nobody_is_stuck_where_blocks_are_few(num_blocks: int):
    engine = engine_of(AQuarterEach, 20, num_blocks)
    requests = [engine.add(prompt, params(4)) for prompt in PROMPTS]
    engine.run_until_idle()
    for prompt, request in zip(PROMPTS, requests, strict=True):
        assert request.output_token_ids == expected_output(prompt, 4)


def test_without_prefix_caching_everybody_computes_their_own():
    engine = engine_of(EightEach, 100, enable_prefix_caching=False)
    for prompt in PROMPTS:
        engine.add(prompt, params(4))
    engine.run_until_idle()
    assert num_prompt_tokens_computed(engine) == sum(map(len, PROMPTS))
