"""What a request is when it has been added, and which ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import expected_output, make_engine, params
from tests.engine.letters import Letters
from tests.engine.scenarios import kept_by
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.errors import InvalidRequest, PromptTooLong
from toolkit.request import SamplingParams, Status


@pytest.mark.parametrize("prompt", [[], "", [-1], [1, -2], [1.5], ["A"], [None], None, 7, [[1]]])
def test_a_prompt_that_is_none_is_refused_alone(prompt: object):
    engine = make_engine(text=Letters())
    with pytest.raises(InvalidRequest) as caught:
        engine.add(prompt, params(1))  # type: ignore[arg-type]
    assert caught.value.param == "prompt"
    assert kept_by(engine) == {}
    assert engine.add([1], params(1)).status is Status.WAITING


def test_text_needs_a_tokenizer():
    with pytest.raises(InvalidRequest, match="token ids"):
        make_engine().add("AB", params(1))


@pytest.mark.parametrize("length", [16, 17, 500])
def test_a_prompt_that_leaves_no_room_is_refused_with_both_lengths(length: int):
    engine = make_engine(max_model_len=16)
    with pytest.raises(PromptTooLong, match=rf"{length} tokens.*16") as caught:
        engine.add([1] * length, params(1))
    assert caught.value.param == "prompt"
    assert engine.add([1] * 15, params(1)).max_tokens == 1


def test_text_becomes_tokens():
    engine = make_engine(text=Letters())
    request = engine.add("BAC", params(1))
    assert request.prompt_token_ids == (1, 0, 2)
    assert request.prompt == "BAC"
    assert request.output.prompt == "BAC"


def test_defaults_are_used_without_parameters():
    assert make_engine().add([1]).params == SamplingParams()


def test_ids_count_requests():
    engine = make_engine()
    assert [engine.add([1], params(1)).id for _ in range(3)] == ["req-0", "req-1", "req-2"]


def test_what_the_caller_says_is_kept():
    engine = make_engine()
    tags = {"tenant": "a"}
    request = engine.add([1], params(1, n=2), priority=3, tags=tags, arrival_s=-5.0, cache_salt="x")
    tags["tenant"] = "b"
    for sample in request.samples:
        assert (sample.priority, sample.arrival_s, sample.cache_salt) == (3, -5.0, "x")
        assert sample.tags == {"tenant": "a"}


# ---- seeds


def seeds(engine_seed: int, *, refuse_first: bool = False) -> list[int]:
    config = EngineConfig(
        cache=CacheConfig(num_blocks=4, block_size=4),
        scheduler=SchedulerConfig(max_model_len=16),
        seed=engine_seed,
    )
    engine = Engine(make_engine().runner, config)
    if refuse_first:
        with pytest.raises(InvalidRequest):
            engine.add([], params(1))
    return [engine.add([1], params(1)).seed for _ in range(3)]


def test_a_request_without_a_seed_gets_one_from_engine_and_arrival():
    assert seeds(0) == seeds(0)
    assert len({*seeds(0), *seeds(1)}) == 6


def test_a_refused_prompt_does_not_shift_the_seeds_of_others():
    assert seeds(0, refuse_first=True) == seeds(0)


def test_a_request_keeps_the_seed_it_brings():
    engine = make_engine()
    assert engine.add([1], params(1, seed=77)).seed == 77
    assert engine.add([1], params(1, seed=0)).seed == 0


# ---- the prefix cache, from outside


def test_a_prompt_seen_before_is_found():
    engine = make_engine(block_size=4)
    engine.add([1] * 10, params(1))
    engine.run_until_idle()
    again = engine.add([1] * 10, params(1))
    engine.run_until_idle()
    assert again.num_cached_tokens == 8
    assert again.output.num_cached_tokens == 8


def test_the_last_token_is_always_computed():
    engine = make_engine(block_size=4)
    for _ in range(2):
        request = engine.add([1] * 8, params(1))
        engine.run_until_idle()
    assert request.num_cached_tokens == 4
    assert request.output_token_ids == expected_output([1] * 8, 1)


def test_outputs_are_found_by_the_next_turn():
    engine = make_engine(block_size=4)
    first = engine.add([1] * 6, params(7))
    engine.run_until_idle()
    second = engine.add([*first.token_ids, 2], params(1))
    engine.run_until_idle()
    # Thirteen tokens, of which the last sampled one was never computed.
    assert second.num_cached_tokens == 12


def test_salts_do_not_share():
    engine = make_engine(block_size=4)
    engine.add([1] * 10, params(1), cache_salt="mine")
    engine.run_until_idle()
    for salt, cached in ((None, 0), ("theirs", 0), ("mine", 8)):
        request = engine.add([1] * 10, params(1), cache_salt=salt)
        engine.run_until_idle()
        assert request.num_cached_tokens == cached


def test_an_empty_salt_is_a_salt_of_its_own_or_none():
    engine = make_engine(block_size=4)
    engine.add([1] * 10, params(1), cache_salt="")
    engine.run_until_idle()
    request = engine.add([1] * 10, params(1), cache_salt="\0")
    engine.run_until_idle()
    assert request.num_cached_tokens == 0


def test_two_prompts_in_one_step_share_what_the_first_computes():
    engine = make_engine(block_size=4, max_num_batched_tokens=64)
    first, second = engine.add([1] * 10, params(2)), engine.add([1] * 10, params(2))
    report = engine.step()
    assert report.plan.num_tokens == 10 + 2
    engine.run_until_idle()
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 8)
    assert first.output_token_ids == second.output_token_ids == expected_output([1] * 10, 2)


def test_nothing_is_cached_when_caching_is_off():
    engine = make_engine(block_size=4, enable_prefix_caching=False)
    for _ in range(2):
        request = engine.add([1] * 10, params(1))
        engine.run_until_idle()
    assert request.num_cached_tokens == 0
    assert engine.cache.pool.num_cached == 0


def test_a_reset_forgets_what_is_reusable_and_spares_what_runs():
    engine = make_engine(block_size=4)
    engine.add([1] * 10, params(1))
    engine.run_until_idle()
    running = engine.add([2] * 10, params(9))
    engine.step()
    assert engine.reset_prefix_cache() == 2
    engine.run_until_idle()
    assert running.output_token_ids == expected_output([2] * 10, 9)
    again = engine.add([1] * 10, params(1))
    engine.step()
    assert again.num_cached_tokens == 0


# ---- the numbers a request carries when it has ended


def test_a_requests_own_counts_agree_with_the_plans():
    engine = make_engine(num_blocks=5, block_size=2)
    requests = [engine.add([i, 7, 9], params(6)) for i in range(5)]
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
    for request in requests:
        chunks = [c for r in reports for c in r.plan.chunks if c.request_id == request.id]
        preempted = sum(request.id in report.plan.preempted_ids for report in reports)
        assert request.num_steps == len(chunks)
        assert request.num_preemptions == preempted
        assert request.peak_blocks == -(-(request.num_tokens - 1) // 2)
        assert request.first_token_s <= request.last_token_s <= request.finished_s


def test_a_request_prints_where_it_stands():
    engine = make_engine()
    request = engine.add([1, 2, 3], params(4))
    engine.step()
    assert repr(request) == ("Request('req-0', running, computed 3 of 4 tokens, 1 sampled)")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"tags": "tenant-a"}, "tags"),
        ({"tags": [("tenant", "a")]}, "tags"),
        ({"priority": "high"}, "priority"),
        ({"priority": True}, "priority"),
        ({"hooks": [print]}, "hooks"),
    ],
)
def test_what_would_be_ignored_or_break_a_policy_later_is_refused_at_once(
    wrong: dict[str, Any], param: str
):
    engine = make_engine()
    with pytest.raises(InvalidRequest, match=param) as refused:
        engine.add([1, 2], params(2), **wrong)
    assert refused.value.param == param
    assert not engine.scheduler.has_work


def test_a_stop_string_without_a_tokenizer_is_refused():
    with pytest.raises(InvalidRequest, match="stop_token_ids"):
        make_engine().add([1, 2], SamplingParams(stop="x"))


def test_an_engine_without_a_tokenizer_is_told_what_ends_a_sequence():
    (first, second, *_) = expected_output([3, 1, 4], 4)
    engine = make_engine(eos_token_ids=[second])
    request = engine.add([3, 1, 4], SamplingParams(max_tokens=4, temperature=1.0))
    engine.run_until_idle()
    assert request.output_token_ids == [first, second]
    assert request.output.outputs[0].finish_reason == "stop"
