"""The Virtual Token Counter: who was served least goes first, and nobody banks credit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import expected_output, make_engine, params
from toolkit.engine import Engine
from toolkit.engine.events import Scheduled, TokenSampled
from toolkit.engine.fair import MAX_AWAY, OUTPUT_WEIGHT, PROMPT_WEIGHT, Fair


def add(engine: Engine, tenant: Any, *, length: int = 3, max_tokens: int = 1, tag: str = "tenant"):
    return engine.add([7] * length, params(max_tokens), tags={tag: tenant})


def order_of_tenants(engine: Engine, tag: str = "tenant") -> str:
    """The tenants' names in the order in which their requests start."""
    started: dict[str, str] = {}
    tags = {request.id: request.tags[tag] for request in engine.scheduler.unfinished}
    unsubscribe = engine.on(
        Scheduled, lambda event: started.setdefault(event.request_id, tags[event.request_id])
    )
    engine.run_until_idle()
    unsubscribe()
    return "".join(started.values())


@pytest.mark.parametrize("num_seats", [1, 2, 8])
def test_tenants_take_turns_whoever_came_first(num_seats: int):
    """With several free seats too: what starts in the same step counts already."""
    engine = make_engine(policy="fair", max_num_seqs=num_seats, num_blocks=64)
    for tenant in "aaaabb":
        add(engine, tenant)
    assert order_of_tenants(engine) == "ababaa"


def test_without_tags_it_is_first_come_first_served():
    engine = make_engine(policy="fair", max_num_seqs=1)
    requests = [engine.add([number], params(2)) for number in range(4)]
    assert engine.scheduler.waiting == tuple(requests)
    engine.run_until_idle()
    assert all(request.num_output_tokens == 2 for request in requests)


def test_a_tenant_with_long_prompts_gets_fewer_of_them():
    engine = make_engine(policy="fair", max_num_seqs=1, num_blocks=64)
    for tenant in "aaa":
        add(engine, tenant, length=12)
    for tenant in "bbbbbbbb":
        add(engine, tenant, length=2)
    # Each of a's costs 12 + 2 and each of b's 2 + 2; at 14 : 16 and at 28 : 28 it is a's turn.
    assert order_of_tenants(engine) == "abbbbabbbab"


def test_output_tokens_count_twice():
    engine = make_engine(policy="fair", max_num_seqs=1, num_blocks=64)
    for tenant in "aa":
        add(engine, tenant, length=1, max_tokens=5)  # 1 + 10
    for tenant in "bbbbb":
        add(engine, tenant, length=1, max_tokens=1)  # 1 + 2
    assert order_of_tenants(engine) == "abbbbab"


def test_a_tenant_that_comes_back_has_banked_nothing():
    engine = make_engine(policy="fair", max_num_seqs=1, num_blocks=64)
    add(engine, "b")
    for _ in range(20):
        add(engine, "a", max_tokens=4)
    engine.run_until(lambda report: report.step > 40)
    for _ in range(4):
        add(engine, "b", max_tokens=4)
    assert order_of_tenants(engine) == "ababababaaaaaa"


def test_a_tenant_that_comes_while_another_has_it_all_starts_level():
    """Nobody is in line when it comes: it is lifted to whoever left the line last."""
    engine = make_engine(policy="fair", max_num_seqs=2, num_blocks=64)
    add(engine, "a", max_tokens=40)
    engine.run_until(lambda report: report.step > 30)
    for tenant in "aabbb":
        add(engine, tenant)
    # The first a is the one that runs; its output tokens let b go before the last one.
    assert order_of_tenants(engine) == "aabbba"


def test_who_was_served_too_much_still_owes_when_it_comes_back():
    engine = make_engine(policy="fair", max_num_seqs=1, num_blocks=64)
    add(engine, "a", length=20, max_tokens=10)
    for tenant in "bbb":
        add(engine, tenant)
    engine.run_until_idle()
    for tenant in "cab":
        add(engine, tenant)
    assert order_of_tenants(engine) == "cba"


def test_the_service_of_two_backlogged_tenants_never_drifts_apart():
    """The paper's bound: 2 max(w_p L_input, w_q M), where M are the tokens of a full batch."""
    engine = make_engine(policy="fair", max_num_seqs=4, num_blocks=64, max_num_batched_tokens=16)
    longest = {"light": 2 + 3, "heavy": 12 + 14}
    served = dict.fromkeys(longest, 0)
    started: set[str] = set()
    tenants: dict[str, str] = {}

    def on_start(event: Scheduled) -> None:
        if event.request_id not in started:
            started.add(event.request_id)
            length = 2 if tenants[event.request_id] == "light" else 12
            served[tenants[event.request_id]] += PROMPT_WEIGHT * length

    def on_token(event: TokenSampled) -> None:
        served[tenants[event.request_id]] += OUTPUT_WEIGHT

    engine.on(Scheduled, on_start)
    engine.on(TokenSampled, on_token)
    bound = 2 * max(PROMPT_WEIGHT * 12, OUTPUT_WEIGHT * 4 * max(longest.values()))
    drift = 0
    for step in range(300):
        in_line = [tenants[request.id] for request in engine.scheduler.waiting]
        for tenant in longest:
            for _ in range(4 - in_line.count(tenant)):
                length, max_tokens = (2, 3) if tenant == "light" else (12, 14)
                request = add(engine, tenant, length=length, max_tokens=max_tokens)
                tenants[request.id] = tenant
        engine.step()
        if step > 10:
            drift = max(drift, abs(served["light"] - served["heavy"]))
    assert min(served.values()) > 3 * bound, "too little was served for the bound to say anything"
    assert drift <= bound


# ---- who is a tenant


def test_the_user_is_the_tenant_where_there_is_no_other():
    engine = make_engine(policy="fair", max_num_seqs=1)
    for tenant in "aab":
        add(engine, tenant, tag="user")
    assert order_of_tenants(engine, "user") == "aba"


def test_any_tag_can_tell_tenants_apart():
    engine = make_engine(policy=Fair(tag="team"), max_num_seqs=1)
    for tenant in "aab":
        engine.add([1], params(1), tags={"team": tenant, "tenant": "same"})
    assert order_of_tenants(engine, "team") == "aba"


@pytest.mark.parametrize("value", [["a", "list"], {"a": "dict"}, 7, "", None])
def test_any_value_can_name_a_tenant(value: Any):
    engine = make_engine(policy="fair", max_num_seqs=1)
    requests = [add(engine, value) for _ in range(3)]
    engine.run_until_idle()
    assert all(request.num_output_tokens == 1 for request in requests)


def test_samples_pay_for_their_prompt_once():
    engine = make_engine(policy="fair", max_num_seqs=1, num_blocks=64)
    engine.add([7] * 12, params(1, n=3), tags={"tenant": "a"})
    add(engine, "b", length=14)
    add(engine, "b", length=14)
    # a's first sample costs 12 + 2, b's first request 14 + 2, and a's other samples 2 each.
    assert order_of_tenants(engine) == "abaab"


# ---- memory


def kept(policy: Fair) -> int:
    lines = sum(map(len, policy._lines.values()))
    return lines + len(policy._served) + len(policy._counters)


def test_what_is_added_and_aborted_without_a_step_is_forgotten():
    policy = Fair()
    engine = make_engine(policy=policy)
    for number in range(2_000):
        engine.abort(add(engine, f"tenant {number}"))
    assert kept(policy) < 300


def test_tenants_that_were_served_and_left_are_forgotten():
    policy = Fair()
    engine = make_engine(policy=policy)
    for number in range(600):
        add(engine, f"tenant {number}", length=1 + number % 5)
        engine.step()
    engine.run_until_idle()
    assert kept(policy) < 300


def test_of_too_many_that_owe_those_that_owe_least_are_forgotten():
    policy = Fair()
    engine = make_engine(policy=policy)
    add(engine, "here")
    engine.step()
    policy._counters.update({f"away {debt}": debt for debt in range(10, MAX_AWAY + 500)})
    add(engine, "here")
    engine.run_until_idle()
    assert len(policy._counters) <= MAX_AWAY + 2
    assert f"away {MAX_AWAY + 499}" in policy._counters


def test_one_object_may_serve_two_engines():
    policy = Fair()
    engines = [make_engine(policy=policy, max_num_seqs=2, num_blocks=8) for _ in range(2)]
    requests = [add(engine, tenant, max_tokens=5) for engine in engines for tenant in "aab"]
    while any(engine.scheduler.has_work for engine in engines):
        for engine in engines:
            if engine.scheduler.has_work:
                engine.step()
    assert all(request.output_token_ids == expected_output([7] * 3, 5) for request in requests)


def test_it_can_take_over_from_another_policy_and_give_back():
    engine = make_engine(num_blocks=8, block_size=2, max_num_seqs=3)
    requests = [add(engine, "ab"[number % 2], max_tokens=6) for number in range(8)]
    for policy in ("fair", "fcfs", "fair"):
        engine.run_until(lambda report: report.step % 5 == 4)
        engine.set_policy(policy)
    engine.run_until_idle()
    assert all(request.output_token_ids == expected_output([7] * 3, 6) for request in requests)
