"""Beam searches among ordinary requests in small random engines, played to their end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.builders import LedgerRunner, expected_output, make_engine, next_logprobs, params
from tests.engine.scenarios import MAX_STEPS, POLICIES
from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine import Engine, SchedulerView, StepReport
from toolkit.engine.beams import BeamSearch, Hypothesis
from toolkit.request import OutputPiece, Request


def expected_beams(prompt: Sequence[int], params: BeamSearchParams) -> list[Hypothesis]:
    """What a search must find under the hash model, computed without an engine."""
    assert params.max_tokens is not None
    search = BeamSearch(
        params, max_tokens=params.max_tokens, stop_token_ids=params.stopping(frozenset())
    )
    while not search.is_done:
        rows = [next_logprobs([*prompt, *beam.token_ids]) for beam in search.beams]
        search.advance([dict(enumerate(row)) for row in rows])
    return search.hypotheses


def tokens_of(request: Request) -> list[list[int]]:
    return [sample.output_token_ids for sample in request.samples]


class Moody:
    """Admits, chunks and keeps back by chance, alike for each new one with the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def admit(self, request: Request, view: SchedulerView) -> bool:
        return self._random.random() < 0.7

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return self._random.choice((0, 1, budget, budget))


@dataclass(frozen=True)
class Arrival:
    """A search, or an ordinary request where ``beams`` is None."""

    step: int
    prompt: list[int]
    max_tokens: int
    priority: int
    beams: BeamSearchParams | None
    aborted_after: int | None  # steps
    fails_after: int | None  # steps


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
    broken_steps: frozenset[int] = frozenset()
    cache_resets: frozenset[int] = frozenset()


@dataclass
class Played:
    """What is left when a world has ended."""

    engine: Engine
    requests: list[tuple[Arrival, Request]] = field(default_factory=list)
    reports: list[StepReport] = field(default_factory=list)
    pieces: list[OutputPiece] = field(default_factory=list)


_SEARCHES = st.builds(
    BeamSearchParams,
    beam_width=st.integers(1, 5),
    max_tokens=st.integers(1, 8),
    length_penalty=st.sampled_from([0.0, 1.0, 2.0]),
    early_stopping=st.sampled_from([False, True, "never"]),
    # A fifth of all tokens end a sequence, or none do.
    stop_token_ids=st.sampled_from([(), (), tuple(range(0, 50, 5))]),
)
_RARELY = [None] * 9
_ARRIVALS = st.builds(
    Arrival,
    step=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    # Three tokens only: prefixes are shared all the time.
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=9),
    max_tokens=st.integers(1, 8),
    priority=st.integers(0, 2),
    beams=st.one_of(st.none(), _SEARCHES, _SEARCHES),
    aborted_after=st.sampled_from([*_RARELY, 0, 1, 3, 6]),
    fails_after=st.sampled_from([*_RARELY, 0, 3]),
)
_STEPS = st.integers(0, 25)
ANY_POLICY = st.sampled_from(POLICIES)


@st.composite
def worlds(draw: st.DrawFn, policies: st.SearchStrategy[Any] = ANY_POLICY) -> World:
    """Engines that hold little more than one sequence, so that beams fight for blocks."""
    block_size = draw(st.integers(1, 4))
    longest = 9 + 8
    return World(
        arrivals=draw(st.lists(_ARRIVALS, min_size=1, max_size=5)),
        num_blocks=-(-longest // block_size) + draw(st.integers(0, 8)),
        block_size=block_size,
        max_num_seqs=draw(st.sampled_from([1, 2, 3, 5, 8])),
        max_num_batched_tokens=draw(st.sampled_from([1, 2, 4, 7, 20])),
        policy=draw(policies),
        enable_prefix_caching=draw(st.booleans()),
        broken_steps=draw(st.sampled_from([frozenset()] * 5 + [frozenset([6])])),
        cache_resets=draw(st.frozensets(_STEPS, max_size=2)),
    )


def play(world: World) -> Played:
    """Drive a world to its end; the engine checks itself after every step."""
    engine = make_engine(
        num_blocks=world.num_blocks,
        block_size=world.block_size,
        max_num_seqs=world.max_num_seqs,
        max_num_batched_tokens=world.max_num_batched_tokens,
        policy=world.policy,
        enable_prefix_caching=world.enable_prefix_caching,
    )
    assert isinstance(engine.runner, LedgerRunner)
    engine.runner.fail_steps = set(world.broken_steps)
    played = Played(engine)
    step = 0
    while step <= 7 or engine.scheduler.has_work:
        assert step < MAX_STEPS, "requests are left that never end"
        for arrival in world.arrivals:
            if arrival.step == step:
                request = engine.add(
                    arrival.prompt,
                    arrival.beams or params(arrival.max_tokens),
                    priority=arrival.priority,
                    sink=played.pieces.append,
                )
                played.requests.append((arrival, request))
        for arrival, request in played.requests:
            last = request.samples[-1].id
            if step - arrival.step == arrival.aborted_after:
                engine.abort(last)
            if step - arrival.step == arrival.fails_after:
                engine.runner.fail_requests.add(last)
        if step in world.cache_resets:
            engine.reset_prefix_cache()
        had_work = engine.scheduler.has_work
        report = engine.step()
        assert bool(report.plan.chunks) == had_work, "the engine idles beside a queue"
        assert engine.scheduler.num_running <= world.max_num_seqs
        assert not set(report.plan.preempted_ids) & set(report.plan.admitted_ids)
        check_tables(engine, report)
        played.reports.append(report)
        step += 1
    return played


def check_tables(engine: Engine, report: StepReport) -> None:
    """Whoever computed and still runs has one block table: the cache's and the runner's are alike.

    A wrong block may hold the right content for a while, so outputs show a difference only by luck.
    """
    assert isinstance(engine.runner, LedgerRunner)
    for chunk in report.plan.chunks:
        if chunk.request_id in engine.cache.tables:
            held = [*engine.cache.table(chunk.request_id)]
            assert engine.runner.tables[chunk.request_id] == held, f"{chunk} has another table"


def promised(arrival: Arrival) -> list[list[int]]:
    """The tokens of each sample, if nothing goes wrong."""
    if arrival.beams is None:
        return [expected_output(arrival.prompt, arrival.max_tokens)]
    return [list(found.token_ids) for found in expected_beams(arrival.prompt, arrival.beams)]
