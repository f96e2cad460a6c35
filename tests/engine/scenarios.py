"""Random worlds for the scheduler: an engine, requests that arrive, and what may go wrong.

``play`` drives a world to its end by hand and checks after every step what must hold at every step;
the tests then ask what must hold at the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.builders import LedgerRunner, expected_output, make_engine, params
from toolkit.clock import VirtualClock
from toolkit.engine import POLICIES as BUILT_IN
from toolkit.engine import Engine, SchedulerView, StepReport
from toolkit.request import OutputPiece, Request

# Twenty requests of at most 20 tokens, one token a step in the worst case, recomputed a few times.
MAX_STEPS = 3_000

# ---- policies, good and bad; each is a function of a seed, so that a world can be replayed


def by_length(request: Request, view: SchedulerView) -> int:
    return request.num_prompt_tokens


def newest_first(request: Request, view: SchedulerView) -> int:
    return -request.arrival_index


def shuffled(request: Request, view: SchedulerView) -> int:
    """Another order each step, without a state."""
    return (request.arrival_index * 7919 + view.last_step * 104729) % 31


class NeverAdmits:
    def admit(self, request: Request, view: SchedulerView) -> bool:
        return False


class SometimesAdmits:
    def admit(self, request: Request, view: SchedulerView) -> bool:
        return (request.arrival_index + view.last_step) % 3 == 0


class NoChunk:
    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 0


class SmallChunks:
    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 3


class HugeChunk:
    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 10**9


class NotEvenAChunk:
    def chunk(self, request: Request, budget: int, view: SchedulerView) -> Any:
        return None


class FirstIsVictim:
    def victim(self, candidates: Any, view: SchedulerView) -> Request:
        return candidates[0]


class StrangerIsVictim:
    """Names a request that waits, or nobody."""

    def victim(self, candidates: Any, view: SchedulerView) -> Request | None:
        return next(iter(view.waiting), None)


class OldestRunnerIsVictim:
    """Names a request that runs but may have been planned already."""

    def victim(self, candidates: Any, view: SchedulerView) -> Request:
        return view.running[0]


class Chaos:
    """Answers whatever comes to its mind, and raises when nothing does; alike in each replay."""

    ANSWERS = (
        None,
        True,
        0,
        3,
        -1,
        2.5,
        float("nan"),
        10**30,
        "ten",
        (),
        (0, "a"),
        np.int64(2),
        np.arange(2),
        ValueError("returned, not raised"),
    )

    def __init__(self) -> None:
        self._rng = random.Random(7)

    def _answer(self) -> Any:
        if self._rng.random() < 0.2:
            raise self._rng.choice([ZeroDivisionError, SystemExit, KeyboardInterrupt])
        return self._rng.choice(self.ANSWERS)

    def rank(self, request: Request, view: SchedulerView) -> Any:
        return self._answer()

    def admit(self, request: Request, view: SchedulerView) -> Any:
        return self._answer()

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> Any:
        return self._answer()

    def victim(self, candidates: Any, view: SchedulerView) -> Any:
        return self._rng.choice([*candidates, *view.running, *view.waiting, self._answer()])


class Everything:
    """All four methods, each a little unwise."""

    def rank(self, request: Request, view: SchedulerView) -> int:
        return shuffled(request, view)

    def admit(self, request: Request, view: SchedulerView) -> bool:
        return view.num_free_blocks % 2 == 0

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 1 + request.arrival_index % 4

    def victim(self, candidates: Any, view: SchedulerView) -> Request:
        return candidates[len(candidates) // 2]


POLICIES: tuple[Any, ...] = (
    *BUILT_IN,
    by_length,
    newest_first,
    shuffled,
    NeverAdmits,
    SometimesAdmits,
    NoChunk,
    SmallChunks,
    HugeChunk,
    NotEvenAChunk,
    FirstIsVictim,
    StrangerIsVictim,
    OldestRunnerIsVictim,
    Chaos,
    Everything,
)


# ---- worlds


@dataclass(frozen=True)
class Arrival:
    """One call of ``engine.add``, and what becomes of the request."""

    step: int
    prompt: list[int]
    max_tokens: int
    priority: int = 0
    n: int = 1
    salt: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    stops_after: int | None = None  # its own n-th token is a stop token
    aborted_after: int | None = None  # steps
    aborted_sample: int = 0
    fails_after: int | None = None  # steps


@dataclass(frozen=True)
class World:
    """The engine and everything that will happen to it."""

    arrivals: list[Arrival]
    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    policy: Any = "fcfs"
    enable_prefix_caching: bool = True
    asynchronous: bool = False
    broken_steps: frozenset[int] = frozenset()
    new_policies: dict[int, Any] = field(default_factory=dict)  # by step
    cache_resets: frozenset[int] = frozenset()
    pauses_s: tuple[float, ...] = (0.0,)  # of the host between steps, in turn

    @property
    def max_model_len(self) -> int:
        return self.num_blocks * self.block_size


# Three tokens only, and prompts cut from one tape: prefixes are shared all the time.
_TAPE = random.Random(20).choices(range(3), k=40)
_PROMPTS = st.builds(
    lambda length, tail: _TAPE[:length] + tail,
    st.integers(0, 14),
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
)
_RARELY = [None] * 7
_ARRIVALS = st.builds(
    Arrival,
    step=st.sampled_from([0, 0, 0, 1, 1, 2, 4, 7]),
    prompt=_PROMPTS,
    max_tokens=st.integers(2, 14),
    priority=st.integers(0, 2),
    n=st.sampled_from([1, 1, 1, 2, 3]),
    salt=st.sampled_from([None, None, "theirs"]),
    tags=st.fixed_dictionaries(
        {},
        optional={
            "tenant": st.sampled_from("abc"),
            "predicted_tokens": st.sampled_from(["2", "10", 5, 0]),
        },
    ),
    stops_after=st.sampled_from([*_RARELY, 1, 2, 4]),
    aborted_after=st.sampled_from([*_RARELY, 0, 1, 2, 5, 8]),
    aborted_sample=st.integers(0, 2),
    fails_after=st.sampled_from([*_RARELY, 0, 3]),
)
_STEPS = st.integers(0, 25)
# Small pools that many requests grow into: many of these worlds see a preemption.
WORLDS = st.builds(
    World,
    arrivals=st.lists(_ARRIVALS, min_size=3, max_size=8),
    num_blocks=st.integers(3, 9),
    block_size=st.integers(1, 4),
    max_num_seqs=st.sampled_from([1, 2, 3, 4, 6, 8]),
    max_num_batched_tokens=st.sampled_from([1, 2, 4, 7, 12, 20, 30]),
    policy=st.sampled_from(POLICIES),
    enable_prefix_caching=st.booleans(),
    asynchronous=st.booleans(),
    broken_steps=st.sampled_from([frozenset()] * 5 + [frozenset([6]), frozenset([11])]),
    new_policies=st.dictionaries(_STEPS, st.sampled_from(POLICIES), max_size=2),
    cache_resets=st.frozensets(_STEPS, max_size=2),
    pauses_s=st.sampled_from([(0.0,), (0.25,), (0.0, 0.5, 0.125)]),
)


# ---- a run


@dataclass
class Guest:
    """A request of a run, with what was promised to it and what its stream brought."""

    arrival: Arrival
    request: Request
    promised: dict[int, list[int]]  # by sample index
    pieces: list[OutputPiece]
    arrived: int  # step

    def pieces_of(self, sample: int) -> list[OutputPiece]:
        return [piece for piece in self.pieces if piece.index == sample]


@dataclass
class Run:
    """What is left when a world has ended."""

    world: World
    engine: Engine
    guests: list[Guest]
    reports: list[StepReport]
    recomputed: dict[str, int] = field(default_factory=dict)  # tokens, by request id

    @property
    def samples(self) -> list[tuple[Guest, Request]]:
        return [(guest, sample) for guest in self.guests for sample in guest.request.samples]


def play(world: World, *, attach: Callable[[Engine], object] | None = None) -> Run:
    """Drive a world to its end; ``attach`` gets the engine before anything happens."""
    engine = make_engine(
        num_blocks=world.num_blocks,
        block_size=world.block_size,
        max_num_seqs=world.max_num_seqs,
        max_num_batched_tokens=world.max_num_batched_tokens,
        policy=world.policy,
        enable_prefix_caching=world.enable_prefix_caching,
        asynchronous=world.asynchronous,
    )
    clock, runner = engine.clock, engine.runner
    assert isinstance(clock, VirtualClock)
    assert isinstance(runner, LedgerRunner)
    runner.fail_steps = set(world.broken_steps)
    clock.advance(1.0)
    if attach is not None:
        attach(engine)
    run = Run(world, engine, [], [])
    computed: dict[str, int] = {}  # where each running request's next chunk must begin
    reached: dict[str, int] = {}  # how far each request ever got
    last_arrival = max(arrival.step for arrival in world.arrivals)
    step = 0
    while step <= last_arrival or engine.scheduler.has_work:
        assert step < MAX_STEPS, "requests are left that never end"
        for arrival in world.arrivals:
            if arrival.step == step:
                run.guests.append(_welcome(engine, world, arrival, step))
        _interfere(run, step)
        clock.advance(world.pauses_s[step % len(world.pauses_s)])
        had_work = engine.scheduler.has_work
        report = engine.step()
        run.reports.append(report)
        assert bool(report.plan.chunks) == had_work, "the engine idles beside a queue"
        _check_plan(engine, world, report, computed)
        for chunk in report.plan.chunks:
            again = min(chunk.end, reached.get(chunk.request_id, 0)) - chunk.start
            run.recomputed[chunk.request_id] = run.recomputed.get(chunk.request_id, 0) + max(
                0, again
            )
            reached[chunk.request_id] = max(chunk.end, reached.get(chunk.request_id, 0))
        step += 1
    return run


def _welcome(engine: Engine, world: World, arrival: Arrival, step: int) -> Guest:
    prompt = arrival.prompt[: world.max_model_len - 1]
    length = min(arrival.max_tokens, world.max_model_len - len(prompt))
    promised = {i: expected_output(prompt, length, i) for i in range(arrival.n)}
    stop_ids: list[int] = []
    if arrival.stops_after is not None and arrival.stops_after <= length:
        stop_ids = [promised[arrival.n - 1][arrival.stops_after - 1]]
    for tokens in promised.values():
        end = next((i for i, token in enumerate(tokens) if token in stop_ids), length)
        del tokens[end + 1 :]
    pieces: list[OutputPiece] = []
    request = engine.add(
        prompt,
        params(arrival.max_tokens, n=arrival.n, stop_token_ids=stop_ids),
        priority=arrival.priority,
        cache_salt=arrival.salt,
        tags=arrival.tags,
        sink=pieces.append,
    )
    return Guest(arrival, request, promised, pieces, step)


def _interfere(run: Run, step: int) -> None:
    """Abort, fail, forget and change policies as the world wants it now."""
    engine, world = run.engine, run.world
    for guest in run.guests:
        age, arrival = step - guest.arrived, guest.arrival
        if age == arrival.aborted_after:
            engine.abort(guest.request.samples[arrival.aborted_sample % arrival.n].id)
        if age == arrival.fails_after:
            engine.runner.fail_requests.add(guest.request.samples[-1].id)  # type: ignore[attr-defined]
    if step in world.new_policies:
        engine.set_policy(world.new_policies[step])
    if step in world.cache_resets:
        engine.reset_prefix_cache()


def _check_plan(engine: Engine, world: World, report: StepReport, computed: dict[str, int]) -> None:
    plan = report.plan
    assert plan.num_tokens == sum(chunk.num_tokens for chunk in plan.chunks)
    assert plan.num_tokens <= world.max_num_batched_tokens
    assert len({chunk.request_id for chunk in plan.chunks}) == len(plan.chunks)
    assert engine.scheduler.num_running <= world.max_num_seqs
    assert report.num_running <= world.max_num_seqs
    assert not (plan.preempted_ids and plan.admitted_ids), "a newcomer overtook the preempted"
    _check_order(engine)
    for request_id in plan.preempted_ids:
        del computed[request_id]
    for chunk in plan.chunks:
        assert 0 < chunk.num_tokens == len(chunk.token_ids)
        if chunk.request_id in plan.admitted_ids:
            assert chunk.is_first
            assert chunk.request_id not in computed
        elif chunk.is_first:
            assert chunk.start > computed[chunk.request_id], "caught up with nobody"
        else:
            assert chunk.start == computed[chunk.request_id], "computed twice, or left out"
        computed[chunk.request_id] = chunk.end


def _check_order(engine: Engine) -> None:
    """Those that run stand in rank order: served from the front, preempted from the back."""
    running = engine.scheduler.running
    name = engine.scheduler.policy.name
    if name in ("fcfs", "priority"):
        places = [(r.priority if name == "priority" else 0, r.arrival_index) for r in running]
        assert places == sorted(places)


def kept_by(engine: Engine) -> dict[str, int]:
    """Everything inside an engine that grows with requests and must shrink with them, by size."""
    scheduler, ledger = engine.scheduler, engine.scheduler._ledger
    sizes = {
        "scheduler.requests": len(scheduler._requests),
        "scheduler.running": len(scheduler._running),
        "scheduler.ranks": len(scheduler._ranks),
        "queue.members": len(scheduler._queue._members),
        "beams.groups": len(scheduler._beams._groups),
        "beams.parked": len(scheduler._beams.parked),
        "beams.moved": len(scheduler._beams.moved),
        "ledger.waiting": len(ledger._waiting),
        "ledger.unseen": len(ledger._unseen),
        "ledger.starting": len(ledger._starting),
        "ledger.behind": len(ledger._behind),
        "ledger.ended": len(ledger._ended),
        "engine.sinks": len(engine._sinks),
        "engine.leaders": len(engine.leaders),
        "loop.inbox": len(engine._loop._inbox),
        "cache.tables": len(engine.cache._tables),
        "blocks in use": engine.cache.pool.num_used,
    }
    if isinstance(engine.runner, LedgerRunner):
        sizes["runner.requests"] = len(engine.runner.requests)
        sizes["runner.tables"] = len(engine.runner.tables)
    return {name: size for name, size in sizes.items() if size}
