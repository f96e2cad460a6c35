"""What happens is an event: in order, with its cause, and harmless to listen to."""

from __future__ import annotations

import logging
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings

from tests.builders import make_engine, params
from tests.engine.letters import Letters
from tests.engine.scenarios import WORLDS, World, play
from toolkit.clock import VirtualClock
from toolkit.engine import Engine, SchedulerView, events
from toolkit.engine.events import (
    Aborted,
    BlockCached,
    BlockCopied,
    BlockEvicted,
    BlockFreed,
    BlockShared,
    BlockTaken,
    EnginePaused,
    Event,
    EventBus,
    Failed,
    Finished,
    PolicyChanged,
    Preempted,
    PrefixHit,
    Rejected,
    RequestAdded,
    Resumed,
    Scheduled,
    StepFinished,
    StepStarted,
    TextEmitted,
    TokenSampled,
    Waited,
)
from toolkit.errors import InvalidRequest
from toolkit.request import Request

KINDS = [
    kind
    for name in events.__all__
    if isinstance(kind := getattr(events, name), type)
    and issubclass(kind, Event)
    and kind is not Event
]


def record(engine: Engine, *kinds: type[Event]) -> list[Event]:
    """Collect events in the order in which they are emitted."""
    seen: list[Event] = []
    for kind in kinds or KINDS:
        engine.on(kind, seen.append)
    return seen


def names(seen: list[Event]) -> list[str]:
    return [type(event).__name__ for event in seen]


def test_every_kind_that_is_promised_exists():
    promised = """RequestAdded Rejected Waited Scheduled Preempted Resumed PrefixHit BlockTaken
        BlockShared BlockCopied BlockCached BlockEvicted BlockFreed TokenSampled TextEmitted
        Finished Failed Aborted StepStarted StepFinished PolicyChanged EnginePaused Rewound"""
    assert {kind.__name__ for kind in KINDS} == {*promised.split()}


def test_the_life_of_one_request_in_order():
    engine = make_engine(text=Letters())
    seen = record(engine)
    engine.add("AB", params(2))
    engine.run_until_idle()
    blocks = {"BlockTaken", "BlockFreed", "BlockCached"}
    assert [name for name in names(seen) if name not in blocks] == [
        "RequestAdded",
        *("StepStarted", "Scheduled", "TokenSampled", "TextEmitted", "StepFinished"),
        *("StepStarted", "Scheduled", "TokenSampled", "TextEmitted", "Finished", "StepFinished"),
    ]


def test_a_step_encloses_what_happens_in_it():
    engine = make_engine(num_blocks=5, block_size=2)
    seen = record(engine)
    for index in range(5):
        engine.add([index, 7, 9], params(6))
    engine.run_until_idle()
    inside = False
    for event in seen:
        if isinstance(event, StepStarted):
            assert not inside
            inside = True
        if not isinstance(event, RequestAdded):
            assert inside, f"{event} outside of a step"
        if isinstance(event, StepFinished):
            inside = False
    steps = [event.step for event in seen]
    assert steps == sorted(steps)


def test_each_kinds_times_never_run_backwards():
    engine = make_engine(num_blocks=5, block_size=2)
    seen = record(engine)
    for index in range(5):
        engine.add([index, 7, 9], params(6))
    engine.run_until_idle()
    for kind in KINDS:
        times = [event.time_s for event in seen if isinstance(event, kind)]
        assert times == sorted(times)


def test_token_events_spell_the_output():
    engine = make_engine(num_blocks=5, block_size=2)
    seen = record(engine, TokenSampled)
    requests = [engine.add([index, 7, 9], params(6)) for index in range(5)]
    engine.run_until_idle()
    for request in requests:
        own = [event for event in seen if event.request_id == request.id]
        assert [event.index for event in own] == list(range(6))
        assert [event.token_id for event in own] == request.output_token_ids


def test_text_events_spell_the_text():
    engine = make_engine(text=Letters())
    seen = record(engine, TextEmitted)
    requests = [engine.add("AB", params(6, stop=["QQ", "ZA"])) for _ in range(2)]
    engine.run_until_idle()
    for request in requests:
        own = [event.text for event in seen if event.request_id == request.id]
        assert "".join(own) == request.output.text


def test_chunk_events_cover_every_token_once_when_nobody_is_preempted():
    engine = make_engine(max_num_batched_tokens=5)
    seen = record(engine, Scheduled)
    requests = [engine.add([index] * 11, params(4)) for index in range(3)]
    engine.run_until_idle()
    for request in requests:
        own = [event for event in seen if event.request_id == request.id]
        covered = [position for event in own for position in range(event.start, event.end)]
        assert covered == list(range(request.num_tokens - 1))


def test_a_preemption_tells_its_cause_and_for_whom():
    engine = make_engine(num_blocks=5, block_size=2)
    seen = record(engine, Preempted)
    for index in range(5):
        engine.add([index, 7, 9], params(6))
    engine.run_until_idle()
    assert seen
    for event in seen:
        assert event.cause == "blocks"
        assert event.victim_of.startswith("req-")


class RefuseThem:
    def admit(self, request: Request, view: SchedulerView) -> bool:
        return request.arrival_index == 0


@pytest.mark.parametrize(
    ("cause", "engine"),
    [
        ("blocks", {"num_blocks": 2}),
        ("policy", {"policy": RefuseThem()}),
        ("seqs", {"max_num_seqs": 1}),
        ("budget", {"max_num_batched_tokens": 1}),
    ],
)
def test_a_request_that_could_not_start_says_why(cause: str, engine: dict):
    built = make_engine(**engine)
    seen = record(built, Waited)
    built.add([1] * 5, params(2))
    second = built.add([2] * 5, params(2))
    report = built.step()
    assert [(event.request_id, event.cause) for event in seen] == [(second.id, cause)]
    assert report.waiting == ((second.id, cause),)


def test_an_eviction_tells_its_age_and_cause():
    engine = make_engine(num_blocks=2, block_size=2)
    seen = record(engine, BlockEvicted)
    clock = engine.clock
    assert isinstance(clock, VirtualClock)
    engine.add([1, 2, 3], params(1))
    engine.run_until_idle()
    used_s = clock.now()
    clock.advance(2.0)
    engine.add([4, 5, 6], params(1))
    engine.step()
    assert [(event.cause, event.age_s) for event in seen] == [
        ("capacity", pytest.approx(clock.now() - 0.01 - used_s))
    ]
    engine.reset_prefix_cache()
    assert [event.cause for event in seen] == ["capacity", "reset"]


def test_a_prefix_hit_is_announced_with_its_length():
    engine = make_engine(block_size=4)
    engine.add([1] * 9, params(1))
    engine.run_until_idle()
    seen = record(engine, PrefixHit, BlockShared)
    second = engine.add([1] * 9, params(1))
    engine.step()
    assert names(seen) == ["BlockShared", "BlockShared", "PrefixHit"]
    assert seen[-1].num_tokens == 8
    assert second.num_cached_tokens == 8


def test_a_copy_on_write_names_both_blocks():
    engine = make_engine(block_size=4)
    seen = record(engine, BlockCopied)
    request = engine.add([1, 2, 3], params(4, n=2))
    engine.step()
    (source,) = engine.cache.table(request.id)
    engine.step()
    (event,) = seen
    assert event.request_id == request.samples[1].id
    assert event.source_id == source
    assert event.block_id == engine.cache.table(request.samples[1].id)[0] != source


def test_an_abort_tells_by_whom():
    engine = make_engine()
    seen = record(engine, Aborted, Finished)
    request = engine.add([1], params(4, n=2))
    engine.step()
    assert engine.abort(request.id, by="disconnect")
    assert [(event.request_id, event.by) for event in seen] == [
        ("req-0", "disconnect"),
        ("req-0.1", "disconnect"),
    ]


def test_a_failure_carries_its_error():
    engine = make_engine()
    engine.runner.fail_requests.add("req-0")
    seen = record(engine, Failed, Finished)
    engine.add([1], params(4))
    engine.run_until_idle()
    (event,) = seen
    assert isinstance(event, Failed)
    assert str(event.error) == "a processor raised"


def test_a_refused_request_is_announced_with_the_error():
    engine = make_engine()
    seen = record(engine)
    with pytest.raises(InvalidRequest):
        engine.add([], params(1))
    (event,) = seen
    assert isinstance(event, Rejected)
    assert isinstance(event.error, InvalidRequest)


def test_a_change_of_policy_and_a_pause_are_announced():
    engine = make_engine()
    seen = record(engine)
    engine.set_policy("priority")
    with engine.paused():
        pass
    assert names(seen) == ["PolicyChanged", "EnginePaused"]
    assert isinstance(seen[0], PolicyChanged)
    assert (seen[0].old, seen[0].new) == ("fcfs", "priority")


# ---- the block events alone tell who holds what


class BlockLedger:
    """Rebuilds every block table from events."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held: dict[str, list[int]] = defaultdict(list)
        self.named: set[int] = set()
        engine.on(BlockTaken, lambda event: self.held[event.request_id].append(event.block_id))
        engine.on(BlockShared, lambda event: self.held[event.request_id].append(event.block_id))
        engine.on(BlockFreed, lambda event: self.held[event.request_id].remove(event.block_id))
        engine.on(BlockCached, lambda event: self.named.add(event.block_id))
        engine.on(BlockEvicted, lambda event: self.named.remove(event.block_id))
        engine.on(StepFinished, lambda event: self.compare())

    def compare(self) -> None:
        told = {name: sorted(blocks) for name, blocks in self.held.items() if blocks}
        assert told == {name: sorted(ids) for name, ids in self.engine.cache.tables.items()}
        cached = {
            i for i in range(self.engine.cache.num_blocks) if self.engine.cache.pool.is_cached(i)
        }
        assert cached <= self.named


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(WORLDS)
def test_block_events_tell_who_holds_what(world: World):
    ledgers: list[BlockLedger] = []
    logger = logging.getLogger("toolkit.engine")
    logger.setLevel(logging.CRITICAL)
    try:
        run = play(world, attach=lambda engine: ledgers.append(BlockLedger(engine)))
    finally:
        logger.setLevel(logging.NOTSET)
    (ledger,) = ledgers
    # A ledger that found a difference would have raised, and been detached.
    assert run.engine.events.wants(StepFinished)
    ledger.compare()
    assert not any(ledger.held.values())


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(WORLDS)
def test_listening_to_everything_changes_nothing(world: World):
    logger = logging.getLogger("toolkit.engine")
    logger.setLevel(logging.CRITICAL)
    try:
        quiet, watched = play(world), play(world, attach=record)
    finally:
        logger.setLevel(logging.NOTSET)
    assert [report.plan for report in quiet.reports] == [report.plan for report in watched.reports]


# ---- observers


@pytest.mark.parametrize("kind", [Event, events.RequestEvent])
def test_what_nobody_ever_hears_of_is_refused(kind: type[Event]):
    engine = make_engine()
    with pytest.raises(TypeError, match=f"just a {kind.__name__}: give the kinds .* Finished"):
        engine.on(kind, print)
    engine.add([1], params(3))
    with pytest.raises(TypeError, match="give the kinds"):
        engine.run_until(kind)
    assert not engine.events.wants(kind)


def test_an_observer_that_raises_is_detached_with_one_warning(caplog: pytest.LogCaptureFixture):
    engine = make_engine()
    calls: list[str] = []

    def broken(event: TokenSampled) -> None:
        calls.append("broken")
        raise ZeroDivisionError

    engine.on(TokenSampled, broken)
    engine.on(TokenSampled, lambda event: calls.append("sound"))
    request = engine.add([1], params(3))
    with caplog.at_level(logging.WARNING, logger="toolkit"):
        engine.run_until_idle()
    assert calls == ["broken", "sound", "sound", "sound"]
    assert len(caplog.records) == 1
    assert "detached" in caplog.text
    assert "TokenSampled" in caplog.text
    assert request.num_output_tokens == 3


def test_unsubscribing_ends_the_calls_and_may_be_repeated():
    engine = make_engine()
    seen: list[Event] = []
    unsubscribe = engine.on(StepFinished, seen.append)
    engine.add([1], params(3))
    engine.step()
    unsubscribe()
    unsubscribe()
    engine.run_until_idle()
    assert len(seen) == 1
    assert not engine.events.wants(StepFinished)


def test_unsubscribing_ends_one_subscription_not_its_twin():
    bus, seen = EventBus(), []
    listener = seen.append
    first, _second = bus.on(StepStarted, listener), bus.on(StepStarted, listener)
    first()
    bus.emit(StepStarted(0, 0.0))
    assert len(seen) == 1


def test_a_listener_may_unsubscribe_itself_while_it_is_called():
    engine = make_engine()
    calls: list[str] = []

    def once(event: StepStarted) -> None:
        calls.append("once")
        unsubscribe()

    unsubscribe = engine.on(StepStarted, once)
    engine.on(StepStarted, lambda event: calls.append("always"))
    engine.add([1], params(2))
    engine.run_until_idle()
    assert calls == ["once", "always", "always"]


def test_a_listener_added_during_an_event_hears_the_next_one():
    bus, heard = EventBus(), []
    bus.on(StepStarted, lambda event: bus.on(StepStarted, heard.append))
    bus.emit(StepStarted(0, 0.0))
    assert heard == []
    bus.emit(StepStarted(1, 0.0))
    assert [event.step for event in heard] == [1]


def test_events_nobody_wants_are_not_built():
    bus = EventBus()
    assert not bus.wants(TokenSampled)
    bus.on(TokenSampled, print)
    assert bus.wants(TokenSampled)
    assert not bus.wants(Resumed)


def test_run_until_stops_after_the_step_that_brought_the_event():
    engine = make_engine()
    engine.add([1] * 40, params(2))  # three steps of at most 16 tokens
    report = engine.run_until(TokenSampled)
    assert report is not None
    assert report.step == 2
    assert not engine.events.wants(TokenSampled)


def test_run_until_takes_a_predicate():
    engine = make_engine()
    engine.add([1], params(9))
    report = engine.run_until(lambda report: report.step == 4)
    assert report is not None
    assert report.step == 4
    assert engine.scheduler.has_work


def test_running_an_idle_engine_does_nothing():
    assert make_engine().run_until_idle() is None
    assert EnginePaused not in make_engine().events._listeners
