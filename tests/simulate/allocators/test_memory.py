"""Where the memory goes: parts that add up, weighed by time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.allocators.test_contiguous import make_engine, params
from toolkit.errors import InvalidConfig
from toolkit.simulate.allocators import ALLOCATORS, MemoryMeter, MemoryUse, memory_use


@settings(max_examples=40, deadline=None)
@given(
    allocator=st.sampled_from(ALLOCATORS),
    loads=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=12),
)
def test_the_parts_add_up_at_every_step(allocator: str, loads: list[tuple[int, int]]) -> None:
    engine = make_engine(allocator, num_blocks=40)
    for number, (num_prompt, num_output) in enumerate(loads):
        engine.add([number] * num_prompt, params(num_output))
    while engine.scheduler.has_work:
        engine.step()
        use = memory_use(engine)
        assert use.num_slots == 160
        assert min(use) >= 0
        computed = sum(request.num_computed_tokens for request in engine.scheduler.running)
        assert use.token_states <= computed  # less where blocks are shared
        if allocator != "paged":
            assert use.token_states == computed
    assert memory_use(engine) == MemoryUse(0, 0, 0, 0, 160)


def test_the_three_wastes_of_a_reservation():
    """Figure 3's example in small: 3 tokens of 10 are stored, the region has 64 slots."""
    engine = make_engine("orca-max", num_blocks=16, max_model_len=64)
    engine.add([1, 2, 3], params(8))
    engine.step()
    assert memory_use(engine) == MemoryUse(
        token_states=3,
        reservation=7,
        internal_fragmentation=54,
        external_fragmentation=0,
        free=0,
    )


def test_what_rounding_costs_is_external():
    engine = make_engine("orca-oracle", num_blocks=16, max_model_len=64)
    engine.add([1, 2, 3], params(7))  # 9 slots, of a region of 16
    engine.step()
    assert memory_use(engine) == MemoryUse(3, 6, 0, 7, 48)


def test_free_memory_is_external_fragmentation_while_somebody_waits_for_room():
    engine = make_engine("orca-max", num_blocks=24, max_model_len=64)  # 96 slots: one region
    engine.add([1, 2, 3], params(8))
    engine.step()
    assert memory_use(engine).free == 32
    engine.add([1, 2, 3], params(8))
    engine.step()
    assert memory_use(engine).external_fragmentation == 32


def test_paging_wastes_less_than_a_block_per_request():
    engine = make_engine("paged", num_blocks=16)
    engine.add([1, 2, 3, 4, 5], params(2))
    engine.step()
    assert memory_use(engine) == MemoryUse(5, 1, 2, 0, 56)


def test_a_shared_block_counts_once():
    engine = make_engine("paged", num_blocks=16)
    for _ in range(2):
        engine.add([1, 2, 3, 4, 5, 6], params(8))
        engine.step()
    assert memory_use(engine).token_states == 4 + 3 + 2  # one full block is common


def test_the_meter_weighs_steps_by_their_time():
    engine = make_engine("orca-oracle", num_blocks=64, max_model_len=64)
    meter = MemoryMeter(engine, every_s=0)
    engine.add([1, 2, 3], params(3))
    engine.add([1, 2, 3], params(1))
    engine.run_until_idle()
    assert meter.duration_s == pytest.approx(0.03)
    assert meter.mean_num_running == pytest.approx((2 + 1 + 1) / 3)
    assert meter.table["time_s"].tolist() == pytest.approx([0.01, 0.02, 0.03])
    assert meter.mean.num_slots == pytest.approx(256)
    assert meter.mean.token_states == pytest.approx((3 + 4 + 0) / 3)
    assert meter.mean.shares().sum() == pytest.approx(1)
    assert meter.mean.shares(of="allocated").sum() == pytest.approx(1)


def test_a_warm_up_does_not_count():
    engine = make_engine("paged")
    meter = MemoryMeter(engine, since_s=0.015)
    engine.add([1, 2, 3], params(3))
    engine.run_until_idle()
    assert meter.duration_s == pytest.approx(0.01)


def test_a_stopped_meter_sees_no_more():
    engine = make_engine("paged")
    meter = MemoryMeter(engine)
    meter.stop()
    engine.add([1, 2, 3], params(3))
    engine.run_until_idle()
    assert meter.duration_s == 0
    assert meter.mean_num_running != meter.mean_num_running


def test_shares_are_of_all_or_of_what_is_allocated():
    with pytest.raises(InvalidConfig, match="allocated"):
        MemoryUse(1, 0, 0, 0, 0).shares(of="used")
