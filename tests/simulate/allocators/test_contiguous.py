"""A region per request: what is reserved, who fits, and that nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import LedgerRunner, expected_output
from toolkit.clock import VirtualClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.errors import EngineError, InvalidConfig
from toolkit.request import Request, SamplingParams
from toolkit.simulate.allocators import ALLOCATORS, ContiguousCache, make_cache, num_slots_needed

ORCA = [name for name in ALLOCATORS if name != "paged"]


def make_request(num_prompt: int, num_output: int) -> Request:
    return Request(
        id=f"{num_prompt}+{num_output}",
        prompt_token_ids=(1,) * num_prompt,
        params=SamplingParams(max_tokens=num_output),
        arrival_index=0,
        arrival_s=0.0,
        seed=0,
        max_tokens=num_output,
    )


def make_engine(allocator: str, *, num_blocks: int = 64, max_model_len: int = 64) -> Engine:
    """An engine whose runner reads every context back through the regions."""
    clock = VirtualClock()
    config = EngineConfig(
        cache=CacheConfig(num_blocks=num_blocks, block_size=4),
        scheduler=SchedulerConfig(
            max_model_len=max_model_len, max_num_seqs=16, max_num_batched_tokens=24
        ),
        check_every_step=True,
    )
    cache = make_cache(allocator, config.cache, max_model_len=max_model_len, clock=clock)
    return Engine(LedgerRunner(cache.block_size, clock), config, clock=clock, cache=cache)


def params(num_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=num_tokens, ignore_eos=True, temperature=0)


@pytest.mark.parametrize(
    ("reserve", "expected"), [("max", 2048), ("pow2", 100 + 32), ("oracle", 100 + 25 - 1)]
)
def test_each_way_reserves_what_the_paper_says(reserve: str, expected: int) -> None:
    """25 output tokens are the paper's own example of 32 reserved ones."""
    cache = ContiguousCache(CacheConfig(num_blocks=983), reserve=reserve, max_model_len=2048)
    request = make_request(100, 25)
    assert cache.num_reserved(request) == expected
    cache.open(request, cache.match_prefix(request))
    assert cache.num_held(request) >= expected
    cache.check()


def test_orca_max_batches_exactly_seven():
    """12 GiB of KV memory hold 15,728 tokens of OPT-13B; floor(15,728 / 2048) = 7."""
    num_slots = 12 * 2**30 // (2 * 40 * 5120 * 2)
    assert num_slots == 15_728
    config = CacheConfig(num_blocks=num_slots // 16, block_size=16)
    cache = ContiguousCache(config, reserve="max", max_model_len=2048)
    held = 0
    while cache.can_hold(request := make_request(10 + held, 5), cache.match_prefix(request)):
        cache.open(request, cache.match_prefix(request))
        held += 1
    assert held == num_slots // 2048 == 7


@given(
    reserve=st.sampled_from(["max", "pow2", "oracle"]),
    num_prompt=st.integers(1, 63),
    num_output=st.integers(1, 63),
)
def test_a_reservation_covers_the_request_and_stays_within_the_longest(
    reserve: str, num_prompt: int, num_output: int
) -> None:
    num_output = min(num_output, 64 - num_prompt)
    cache = ContiguousCache(CacheConfig(num_blocks=64), reserve=reserve, max_model_len=64)
    request = make_request(num_prompt, max(num_output, 1))
    assert num_slots_needed(request) <= cache.num_reserved(request) <= 64


def test_a_prediction_that_is_too_short_is_raised_to_what_may_be_needed():
    cache = ContiguousCache(
        CacheConfig(num_blocks=64), reserve=lambda request, longest: 1, max_model_len=64
    )
    assert cache.num_reserved(make_request(10, 5)) == 14


@settings(max_examples=40, deadline=None)
@given(
    allocator=st.sampled_from(ALLOCATORS),
    loads=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=12),
)
def test_every_allocator_serves_the_same_tokens(
    allocator: str, loads: list[tuple[int, int]]
) -> None:
    engine = make_engine(allocator, num_blocks=40)
    prompts = [
        [(7 * number + at) % 50 for at in range(length)] for number, (length, _) in enumerate(loads)
    ]
    requests = [
        engine.add(prompt, params(num_output))
        for prompt, (_, num_output) in zip(prompts, loads, strict=True)
    ]
    engine.run_until_idle()
    for request, prompt, (_, num_output) in zip(requests, prompts, loads, strict=True):
        assert request.output_token_ids == expected_output(prompt, num_output)
    assert engine.cache.pool.num_used == 0


@pytest.mark.parametrize("allocator", ORCA)
def test_nobody_is_preempted_and_nothing_is_shared(allocator: str) -> None:
    engine = make_engine(allocator, num_blocks=32)
    requests = [engine.add([5] * 20, params(20)) for _ in range(8)]
    engine.run_until_idle()
    assert all(request.num_preemptions == 0 for request in requests)
    assert all(request.num_cached_tokens == 0 for request in requests)


def test_who_does_not_fit_waits_for_room():
    engine = make_engine("orca-max", num_blocks=32, max_model_len=64)  # two regions
    for _ in range(3):
        engine.add([1, 2, 3], params(4))
    report = engine.step()
    assert report.num_running == 2
    assert report.plan.limited_by == "blocks"


def test_samples_cannot_share_a_region():
    cache = ContiguousCache(CacheConfig(num_blocks=64), reserve="max", max_model_len=64)
    with pytest.raises(EngineError, match="paged cache"):
        cache.fork(make_request(4, 4), make_request(5, 5), 3)


def test_a_cache_that_could_never_hold_the_longest_request_is_refused():
    config = CacheConfig(num_blocks=100, block_size=1)
    with pytest.raises(InvalidConfig, match="lower max_model_len"):
        ContiguousCache(config, reserve="oracle", max_model_len=65)  # would take 128


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidConfig, match="orca-pow2"):
        make_cache("orca", CacheConfig(num_blocks=64), max_model_len=64)
    with pytest.raises(InvalidConfig, match="oracle"):
        ContiguousCache(CacheConfig(num_blocks=64), reserve="orca", max_model_len=64)


def test_a_function_makes_a_cache_of_ones_own():
    def small(config: CacheConfig, *, clock: VirtualClock | None = None) -> ContiguousCache:
        return ContiguousCache(config, reserve="max", max_model_len=32, clock=clock)

    cache = make_cache(small, CacheConfig(num_blocks=64), max_model_len=64)
    assert isinstance(cache, ContiguousCache)
    assert cache.max_model_len == 32
