"""What each built-in policy does differently from first come, first served, and who pays for it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.builders import expected_output, make_engine, params
from tests.engine.scenarios import WORLDS, World, play
from tests.engine.test_nothing_is_lost import check_everything
from toolkit.engine import POLICIES, Engine
from toolkit.engine.events import Scheduled
from toolkit.engine.policies import LongestPrefixFirst, ShortestFirst, ShortestOutputFirst
from toolkit.request import Request


def order_of_first_chunks(engine: Engine) -> list[str]:
    started: list[str] = []
    engine.on(Scheduled, lambda event: started.append(event.request_id))
    engine.run_until_idle()
    return list(dict.fromkeys(started))


def tokens_of(engine: Engine) -> dict[str, int]:
    """How many tokens each request gets in the next step."""
    return {chunk.request_id: chunk.num_tokens for chunk in engine.step().plan.chunks}


def test_the_eight_of_the_contract_are_there():
    assert set(POLICIES) == {
        "fcfs",
        "priority",
        "shortest-first",
        "shortest-output-first",
        "longest-prefix-first",
        "prefill-first",
        "decode-first",
        "fair",
    }


# ---- all of them


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_request_gets_its_due_without_a_warning(name: str, caplog: pytest.LogCaptureFixture):
    """In any world: aborts, failures, tiny pools, samples, priorities."""

    @settings(
        max_examples=12,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.generate, Phase.shrink],
    )
    @given(WORLDS)
    def in_each(world: World) -> None:
        caplog.clear()
        check_everything(play(replace(world, policy=name, new_policies={})))
        # The engine's own are of the broken steps of these worlds.
        warned = [record for record in caplog.records if "polic" in record.name]
        assert not warned, caplog.text

    in_each()


NEVER_STARVES = ["fcfs", "decode-first", "fair"]


def steps_until_served(policy: str, *, patience: int) -> int | None:
    """A long prompt among short ones that keep coming, more than there are seats for."""
    engine = make_engine(
        num_blocks=24, max_model_len=40, max_num_seqs=4, max_num_batched_tokens=8, policy=policy
    )
    for index in range(6):
        engine.add([index, 9], params(4), tags={"tenant": "short"})
    long = engine.add(list(range(30)), params(3), tags={"tenant": "long"}, priority=1)
    for step in range(patience):
        if long.is_finished:
            assert long.output_token_ids == expected_output(list(range(30)), 3)
            return step
        for index in range(2):
            engine.add([step % 50, index], params(4), tags={"tenant": "short"})
        engine.step()
    return None


@pytest.mark.parametrize("policy", NEVER_STARVES)
def test_a_long_prompt_among_endless_short_ones_is_served_in_bounded_time(policy: str):
    assert steps_until_served(policy, patience=60) is not None


@pytest.mark.parametrize("policy", ["priority", "shortest-first"])
def test_under_these_it_starves_as_their_docstrings_say(policy: str):
    assert steps_until_served(policy, patience=120) is None


# ---- one by one


def test_shortest_first_starts_the_shortest_prompt():
    engine = make_engine(policy="shortest-first", max_num_seqs=1)
    for length in (5, 2, 3):
        engine.add([length] * length, params(1))
    assert order_of_first_chunks(engine) == ["req-1", "req-2", "req-0"]


def test_shortest_first_counts_what_is_left_of_a_prompt():
    engine = make_engine(policy="shortest-first", max_num_batched_tokens=4)
    request = engine.add([1] * 10, params(3))
    left = []
    while engine.scheduler.has_work:
        left.append(ShortestFirst().rank(request, engine.scheduler._view(0.0)))
        engine.step()
    assert left == [10, 6, 2, 0, 0]


@pytest.mark.parametrize("as_text", [False, True])
def test_shortest_output_first_starts_the_shortest_prediction(as_text: bool):
    """OpenAI's metadata is text, in which "10" would sort before "9"."""
    engine = make_engine(policy="shortest-output-first", max_num_seqs=1)
    for predicted in (10, None, 9, 200):
        tags = {"predicted_tokens": str(predicted) if as_text else predicted}
        engine.add([1, 2], params(1), tags=tags if predicted is not None else None)
    assert order_of_first_chunks(engine) == ["req-2", "req-0", "req-3", "req-1"]


def test_shortest_output_first_counts_what_is_left_of_the_prediction():
    engine = make_engine()
    request = engine.add([1, 2], params(5), tags={"predicted_tokens": "3"})
    left = []
    while engine.scheduler.has_work:
        left.append(ShortestOutputFirst().rank(request, engine.scheduler._view(0.0))[1])
        engine.step()
    assert left == [3, 2, 1, 0, 0]


UNUSABLE = ["soon", "", "-1", -1, "nan", "inf", float("nan"), "1e999", 10**400, True, [7], {}]


def test_predictions_that_do_not_parse_come_last_with_one_warning(
    caplog: pytest.LogCaptureFixture,
):
    engine = make_engine(policy="shortest-output-first", max_num_seqs=1, num_blocks=64)
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        for value in UNUSABLE:
            engine.add([1, 2], params(1), tags={"predicted_tokens": value})
        engine.add([1, 2], params(1))
        engine.add([1, 2], params(1), tags={"predicted_tokens": "12"})
        order = order_of_first_chunks(engine)
    assert order == [f"req-{len(UNUSABLE) + 1}", *(f"req-{i}" for i in range(len(UNUSABLE) + 1))]
    assert [record.getMessage() for record in caplog.records] == [
        "policy shortest-output-first: predicted_tokens='soon' of req-0 counts as absent, "
        "and so does every other that is no count"
    ]


def test_longest_prefix_first_starts_what_is_in_the_cache():
    engine = make_engine(policy="longest-prefix-first", block_size=4, max_num_seqs=1)
    engine.add([1] * 13, params(1))
    engine.run_until_idle()
    for prompt in ([2] * 13, [1] * 5 + [3] * 8, [1] * 13):
        engine.add(prompt, params(1))
    assert order_of_first_chunks(engine) == ["req-3", "req-2", "req-1"]


def test_longest_prefix_first_lets_those_that_run_go_on():
    """Whoever waits may have more in the cache, but takes nobody's place."""
    engine = make_engine(policy="longest-prefix-first", block_size=4)
    engine.add([1] * 13, params(1))
    engine.run_until_idle()
    running = [engine.add([number] * 3, params(9)) for number in (2, 3)]
    engine.step()
    late = engine.add([1] * 13, params(9))
    engine.step()
    assert engine.scheduler.running == (*running, late)
    view = engine.scheduler._view(0.0)
    assert LongestPrefixFirst().rank(late, view) == LongestPrefixFirst().rank(running[0], view)


def test_prefill_first_computes_prompts_while_streams_stall():
    engine = make_engine(policy="prefill-first", max_num_batched_tokens=8)
    engine.add([1, 2], params(9))
    assert tokens_of(engine) == {"req-0": 2}
    assert tokens_of(engine) == {"req-0": 1}
    engine.add([3] * 12, params(9))
    assert tokens_of(engine) == {"req-1": 8}
    assert tokens_of(engine) == {"req-1": 4}
    assert tokens_of(engine) == {"req-0": 1, "req-1": 1}


@pytest.mark.parametrize("limit", [{"max_num_seqs": 1}, {"num_blocks": 4}])
def test_prefill_first_goes_on_generating_when_no_prompt_can_start(
    limit: dict[str, int], caplog: pytest.LogCaptureFixture
):
    """Somebody waits all the time, without a seat or without blocks."""
    engine = make_engine(policy="prefill-first", block_size=4, **limit)
    engine.add([1] * 9, params(4))
    engine.add([2] * 9, params(4))
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        steps = [tokens_of(engine) for _ in range(5)]
    assert steps == [{"req-0": 9}, {"req-0": 1}, {"req-0": 1}, {"req-0": 1}, {"req-1": 9}]
    assert not caplog.records


def test_fcfs_lets_an_early_prompt_hold_up_a_late_stream_and_decode_first_does_not():
    engine = make_engine(policy="shortest-first", max_num_batched_tokens=4)
    engine.add([1] * 16, params(9))
    engine.add([2, 3], params(9))
    assert tokens_of(engine) == {"req-1": 2, "req-0": 2}
    engine.set_policy("fcfs")
    assert tokens_of(engine) == {"req-0": 4}
    engine.set_policy("decode-first")
    assert tokens_of(engine) == {"req-1": 1, "req-0": 3}


def test_decode_first_finishes_prompts_that_have_begun_before_new_ones():
    engine = make_engine(policy="decode-first", max_num_batched_tokens=4)
    for number in range(3):
        engine.add([number] * 6, params(2))
    steps = [tokens_of(engine) for _ in range(5)]
    assert steps == [
        {"req-0": 4},
        {"req-0": 2, "req-1": 2},
        {"req-0": 1, "req-1": 3},
        {"req-1": 1, "req-2": 3},
        {"req-1": 1, "req-2": 3},
    ]


# ---- which order is free to differ


@given(st.sampled_from(sorted(POLICIES)), st.permutations(range(6)))
@settings(max_examples=25)
def test_no_policy_changes_a_token(name: str, lengths: list[int]):
    """Who runs when is the policy's; what comes out is not."""
    engine = make_engine(policy=name, num_blocks=6, block_size=3, max_num_seqs=3)
    added: list[tuple[list[int], Request]] = []
    for number, length in enumerate(lengths):
        prompt: list[Any] = [number] * (length + 1)
        tags = {"tenant": number % 2, "predicted_tokens": length}
        added.append((prompt, engine.add(prompt, params(7), tags=tags, priority=length)))
    engine.run_until_idle()
    for prompt, request in added:
        assert request.output_token_ids == expected_output(prompt, 7)
