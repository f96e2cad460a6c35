"""The simulated machine: the real engine over a cost model, under random loads."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings

from tests.simulate.loads import SEEDS, TINY, make_machine, random_load
from toolkit.clock import VirtualClock
from toolkit.engine import POLICIES, Engine, SampledToken, StepPlan, StepResult
from toolkit.errors import EngineError, InvalidConfig, InvalidRequest
from toolkit.request import Request, SamplingParams
from toolkit.simulate import (
    Arrival,
    Device,
    Machine,
    Roofline,
    StepWork,
    drive,
    resolve_device,
    resolve_shape,
)

# A cache so small that requests are preempted, steps so small that prompts come in chunks.
CRAMPED: dict[str, Any] = {
    "block_size": 4,
    "num_kv_blocks": 25,
    "max_num_seqs": 6,
    "max_num_batched_tokens": 16,
    "level": "blocks",
}


def options_for(rng: random.Random) -> dict[str, Any]:
    return {
        **CRAMPED,
        "policy": rng.choice([*POLICIES]),
        "enable_prefix_caching": rng.random() < 0.7,
    }


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_every_token_is_accounted_for_and_time_only_moves_on(seed: int):
    rng = random.Random(seed)
    load = random_load(rng, 25)
    engine = make_machine().engine(check_every_step=True, **options_for(rng))
    ids = drive(engine, load, progress=False)
    record = engine.record
    requests, steps = record.requests.set_index("request_id"), record.steps
    for arrival in load:
        row = requests.loc[ids[arrival.arrival_id]]
        assert row["status"] == "finished"
        assert row["num_output_tokens"] == arrival.num_output_tokens
        assert row["num_prompt_tokens"] == arrival.num_prompt_tokens
    # Every token but each request's last one is computed, found in the cache or computed again.
    num_needed = int((requests["num_prompt_tokens"] + requests["num_output_tokens"] - 1).sum())
    num_computed = steps["num_tokens"].sum() + steps["num_cached_tokens"].sum()
    num_lost = num_computed - num_needed
    assert num_lost >= 0
    assert num_lost == 0 or requests["num_preemptions"].sum() > 0
    assert (steps["start_s"].diff().dropna() > 0).all()
    assert (record.tokens["itl_s"].dropna() > 0).all()
    assert engine.cache.num_free_blocks == engine.cache.num_blocks


@settings(max_examples=5, deadline=None)
@given(SEEDS)
def test_the_same_load_gives_the_same_run_bit_for_bit(seed: int):
    load = random_load(random.Random(seed), 25)
    options = options_for(random.Random(seed))
    one, other = (make_machine().run(load, progress=False, **options) for _ in range(2))
    for table in ("steps", "chunks", "requests", "tokens", "blocks", "events"):
        assert getattr(one, table).equals(getattr(other, table)), table


class Timed:
    """A runner with a model of its own, so to speak: other tokens, the same durations."""

    def __init__(self, durations_s: list[float], clock: VirtualClock) -> None:
        self.durations_s, self.clock = durations_s, clock

    def prepare(self, request: Request) -> None:
        """Serve everybody."""

    def run(self, plan: StepPlan) -> StepResult:
        self.clock.advance(self.durations_s[plan.step])
        names = [chunk.request_id for chunk in plan.chunks if chunk.samples]
        return StepResult(tokens={name: (SampledToken(len(name)),) for name in names})

    def release(self, request_id: str) -> None:
        """Hold nothing."""

    def close(self) -> None:
        """Hold nothing."""


@settings(max_examples=5, deadline=None)
@given(SEEDS)
def test_a_real_engine_whose_steps_last_as_long_has_the_same_schedule(seed: int):
    load = random_load(random.Random(seed), 25)
    options = options_for(random.Random(seed))
    engine = make_machine().engine(**options)
    ids = drive(engine, load, progress=False)
    durations = engine.record.steps["duration_s"].tolist()
    clock = VirtualClock()
    record = type(engine.record)(level="blocks")
    other = Engine(Timed(durations, clock), engine.config, clock=clock, recorder=record)
    assert drive(other, load, progress=False) == ids
    hidden = {"chunks": [], "blocks": ["hash"], "steps": ["forward_s"]}
    for table, columns in hidden.items():
        here, there = getattr(engine.record, table), getattr(record, table)
        assert here.drop(columns=columns).equals(there.drop(columns=columns)), table


def test_a_request_that_comes_in_the_middle_of_a_step_waits_for_its_end():
    record = make_machine().run([Arrival(0, 0.0, 10, 3), Arrival(1, 0.005, 10, 1)], progress=False)
    requests = record.requests.set_index("request_id")
    # Steps of 10 + 10 ms, then 10 + 1 + 10 ms: see ``seconds``.
    assert requests.loc["req-0", "ttft_s"] == pytest.approx(0.020)
    assert requests.loc["req-1", "arrival_s"] == pytest.approx(0.005)
    assert requests.loc["req-1", "ttft_s"] == pytest.approx(0.020 + 0.021 - 0.005)
    assert requests.loc["req-1", "wait_host_s"] == pytest.approx(0.015)


def test_time_jumps_where_nobody_is_there():
    record = make_machine().run([Arrival(0, 0.0, 1, 1), Arrival(1, 1e6, 1, 1)], progress=False)
    assert record.steps["start_s"].tolist() == [0.0, 1e6]


def test_a_request_that_follows_another_comes_after_its_end():
    load = [
        Arrival(0, 0.0, 10, 2),
        Arrival(1, 0.5, 10, 1, after=0),
        Arrival(2, 0.5, 10, 1, after=1),
    ]
    engine = make_machine().engine()
    ids = drive(engine, load, progress=False)
    requests = engine.record.requests.set_index("request_id")
    for arrival in load[1:]:
        before, row = requests.loc[ids[arrival.after]], requests.loc[ids[arrival.arrival_id]]
        assert row["arrival_s"] == pytest.approx(before["finished_s"] + 0.5)


def test_what_the_machine_refuses_has_no_id_and_does_not_hold_up_others():
    load = [Arrival(0, 0.0, 500, 2), Arrival(1, 0.5, 10, 1, after=0)]
    engine = make_machine().engine()
    ids = drive(engine, load, progress=False)
    assert ids == {1: "req-0"}
    assert engine.record.events["kind"].tolist().count("rejected") == 1


def test_a_load_can_be_left_before_its_end():
    engine = make_machine().engine()
    load = [Arrival(number, 0.1 * number, 10, 40) for number in range(50)]
    drive(engine, load, progress=False, until_s=1.0)
    assert 1.0 <= engine.clock.now() < 1.1
    assert engine.scheduler.has_work


def test_loads_after_one_another_share_nothing_unasked():
    engine = make_machine().engine(block_size=4)
    for _ in range(2):
        drive(engine, [Arrival(0, 0.0, 40, 2)], progress=False)
    assert engine.record.requests["num_cached_tokens"].tolist() == [0, 0]


def test_keys_of_blocks_are_what_the_pool_finds():
    keys = tuple(bytes([index]) for index in range(10))
    load = [Arrival(0, 0.0, 40, 2, block_keys=keys), Arrival(1, 9.0, 30, 2, block_keys=keys[:7])]
    record = make_machine().run(load, progress=False, block_size=4)
    assert record.requests["num_cached_tokens"].tolist() == [0, 28]


def test_a_copied_block_takes_as_long_as_it_is_large():
    shape, device = resolve_shape("opt-13b"), resolve_device("A100-40GB")
    machine = Machine(shape, device, cost_model=Roofline(shape, device))
    work = StepWork(0, 1, 1, 0, 1, 9.5, 0.0, 9, 0, num_copied_blocks=3)
    small, large = (
        machine.engine(block_size=size).runner.cost_model.parts(work).copies for size in (16, 64)
    )
    assert large == pytest.approx(4 * small)


def test_options_that_make_no_sense_are_refused():
    for size in (0, -1, 1.5):
        with pytest.raises(InvalidConfig, match="block_size must be a positive integer"):
            make_machine().engine(block_size=size)
    with pytest.raises(InvalidConfig, match="no option blocksize; it has policy"):
        make_machine().run([], progress=False, blocksize=8)


@pytest.mark.parametrize("keys", [(b"a",), (b"a", b"b", b"c")])
def test_keys_of_blocks_of_another_size_are_an_error(keys: tuple[bytes, ...]):
    load = [Arrival(0, 0.0, 40, 2, block_keys=keys)]
    with pytest.raises(InvalidConfig, match=f"{len(keys)} block_keys for 2 full blocks of 16"):
        make_machine().run(load, progress=False)


def test_prompts_shorter_than_a_block_of_their_trace_do_not_silently_share_nothing():
    short = Arrival(0, 0.0, 40, 2, key_tokens=512)
    with pytest.raises(InvalidConfig, match="0 block_keys of 512 tokens for 2 full blocks of 16"):
        make_machine().run([short], progress=False)
    for options in ({"block_size": 512}, {"block_size": 64}, {"enable_prefix_caching": False}):
        record = make_machine().run([short], progress=False, **options)
        assert record.requests["status"].tolist() == ["finished"]


def test_a_cache_that_finds_no_prefixes_asks_for_no_keys():
    load = [Arrival(0, 0.0, 40, 2, block_keys=(b"a",))]
    record = make_machine().run(load, progress=False, enable_prefix_caching=False)
    assert record.requests["status"].tolist() == ["finished"]


@pytest.mark.parametrize(
    "params",
    [SamplingParams(logprobs=1), SamplingParams(prompt_logprobs=1)],
)
def test_what_only_a_model_knows_is_refused(params: SamplingParams):
    with pytest.raises(InvalidRequest, match="has no model"):
        make_machine().engine().add([1, 2, 3], params)


def test_a_cost_model_without_sense_fails_the_requests_of_its_step():
    record = make_machine(lambda work: float("nan")).run([Arrival(0, 0.0, 4, 2)], progress=False)
    assert record.requests["status"].tolist() == ["failed"]
    assert "step 0 takes nan s" in record.requests["error"][0]


def test_an_engine_without_a_journal_says_that_it_cannot_go_back():
    engine = make_machine().engine()
    drive(engine, [Arrival(0, 0.0, 4, 9)], progress=False)
    with pytest.raises(EngineError, match="keeps_journal=True"):
        engine.rewind(2)


def test_an_engine_with_a_journal_goes_back():
    engine = make_machine().engine(keeps_journal=True)
    drive(engine, [Arrival(0, 0.0, 4, 9)], progress=False)
    before = engine.record.steps
    engine.rewind(2)
    assert len(engine.record.steps) == 2
    engine.run_until_idle()
    assert engine.record.steps["num_tokens"].tolist() == before["num_tokens"].tolist()


def test_an_engine_takes_another_cache():
    made = []

    def allocator(config: Any, *, clock: Any) -> Any:
        from toolkit.cache.blocks import PagedCache

        made.append(PagedCache(config, clock=clock))
        return made[0]

    engine = make_machine().engine(allocator=allocator)
    assert engine.cache is made[0] is engine.scheduler.cache
    with pytest.raises(InvalidConfig, match="not one of paged"):
        make_machine().engine(allocator="orderly")


@pytest.mark.parametrize(
    ("model", "device", "tensor_parallel", "slots"),
    [
        ("opt-13b", "A100-40GB", 1, 15_728),  # Kwon et al. 2023, table 1
        ("opt-175b", "A100-80GB", 8, 60_074),
        ("opt-13b", "A100-80GB", 1, 66_144),  # DistServe
    ],
)
def test_published_sizes_of_the_cache(model: str, device: str, tensor_parallel: int, slots: int):
    assert Machine(model, device, tensor_parallel=tensor_parallel).kv_slots == slots


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(InvalidConfig, match="raise tensor_parallel"):
        Machine("llama-3-70b", "A100-80GB")
    with pytest.raises(InvalidConfig, match="has none"):
        Machine(TINY, "cpu-2core", tensor_parallel=2)
    for count in (0, 1.5, True):
        with pytest.raises(InvalidConfig, match="tensor_parallel must be"):
            Machine("opt-13b", "A100-40GB", tensor_parallel=count)


def test_a_machine_says_where_its_figures_come_from():
    shown = repr(Machine("opt-13b", "A100-40GB"))
    assert "DistServe artifact" in shown
    assert "not validated" in shown
    alone, shared = (repr(Machine("llama-3-8b", "H100", tensor_parallel=n)) for n in (1, 2))
    assert "2 ms of host a step" in alone
    assert "all-reduces" not in alone
    assert "layers shared by 2, with two all-reduces each" in shared

    class Fitted:
        origin, held_out_error = "steps of a run", 0.061

        def __call__(self, work: Any) -> float:
            return 0.01

    shown = repr(Machine("opt-13b", "A100-40GB", cost_model=Fitted()))
    assert "steps of a run" in shown
    assert "6.1%" in shown
    assert "the caller's own seconds" in repr(make_machine())
    assert isinstance(Machine("opt-13b", "A100-40GB").device, Device)
