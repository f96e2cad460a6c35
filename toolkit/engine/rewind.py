"""Put an engine back to just before an earlier step: the same objects, and its runner restored.

The journal is played twice beside the engine. The first time with copies of the requests: if the
past does not come out as it was, nothing has been touched yet. The second time with the requests
themselves; the scheduler and the cache that this leaves become the engine's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.cache.blocks import block_hashes
from toolkit.clock import Clock, RecordedClock, ShiftedClock
from toolkit.engine.entries import Added, Base, CachedBlock, Stepped, pristine
from toolkit.engine.events import Rewound
from toolkit.engine.journal import Journal
from toolkit.engine.past import Player, RecordedRunner, reborn, restarted
from toolkit.errors import EngineError, InvalidParameter
from toolkit.request import Request, SamplingParams

__all__ = ["base_of", "now_of", "played", "require_changeable", "rewind"]

# What a request starts with, or what others have matched already.
_FIXED = (
    "n",
    "seed",
    "stop",
    "include_stop_str_in_output",
    "detokenize",
    "skip_special_tokens",
    "shown_special_token_ids",
    "logprobs",
    "prompt_logprobs",
    "bad_words",
    "structured_outputs",
)


def rewind(engine: Any, step: int) -> Any:
    """Put the engine back; return its record as it was, if it has one. Nobody else may act."""
    journal: Journal = engine.journal
    journal.require(step)
    if not hasattr(engine.runner, "restore"):
        raise EngineError(f"{type(engine.runner).__name__} has no restore(): it cannot go back")
    played(engine.blank, journal, step, reborn)
    # A recorder of somebody's own need not be able to go back.
    recorder = engine.record if hasattr(engine.record, "truncate") else None
    record = None
    if recorder is not None:
        record = recorder.freeze()
    present = _groups(journal)
    player = played(engine.blank, journal, step, restarted)
    now_s = now_of(journal, step)
    _take_over(engine, player, now_s=now_s)
    engine.intake.numbers = _numbers(journal, step, engine.intake.numbers)
    # Another one: what was frozen before keeps the one that it has.
    engine.journal = journal.frozen(step)
    for request_id in present.keys() - player.requests.keys():
        engine.vanish(present[request_id])
    engine.runner.restore(player.restoration())
    if recorder is not None:
        recorder.truncate(step)
        recorder.journal = engine.journal
    engine.step_number = step
    # Once more, last: computing the cache again takes long, and nobody waited meanwhile.
    engine.use_clock(ShiftedClock(engine.clock, now_s))
    engine.emit(Rewound, from_step=journal.next_step)
    # What happens from now on happens after the last step that still counts, as everywhere.
    engine.step_number = max(0, step - 1)
    return record


def played(
    blank: Callable[[Any, Clock], Any],
    journal: Journal,
    step: int,
    restart: Callable[[Added], tuple[Request, ...]],
    prepare: Callable[[Any], object] = lambda engine: None,
) -> Player:
    """Play a journal up to a step on a blank engine; ``player.engine`` stands there then.

    Args:
        blank: Makes an engine of a runner and a clock, with the journal's first policy.
        journal: What to play.
        step: Where to stop: just before it.
        restart: Makes the requests.
        prepare: Called with the engine before anything happens.
    """
    entries = journal.before(step)
    clock = RecordedClock(now_of(journal, journal.first_step))
    runner = RecordedRunner()
    player = Player(blank(runner, clock), clock, restart)
    runner.begin(player.engine, journal.base)
    prepare(player.engine)
    player.begin(journal.base)
    player.play_all(entries)
    clock.now_s = now_of(journal, step)
    return player


def now_of(journal: Journal, step: int) -> float:
    """Return the time of the moment before a step: its start, or the end of the last one."""
    now_s = 0.0
    for entry in journal:
        if isinstance(entry, Stepped):
            now_s = entry.clock.start_s
            if entry.step >= step:
                return now_s
            now_s = entry.clock.sent_s
        elif isinstance(entry, Added):
            now_s = max(now_s, entry.queued_s)
    return now_s


def base_of(engine: Any) -> Base:
    """Return where a journal can begin now: nothing is unfinished.

    A cached block is kept with the tokens up to its end, from which it can be computed again. One
    that nobody's tokens explain, of a beam that was dropped say, is given up.
    """
    pool, size = engine.cache.pool, engine.cache.block_size
    old: Journal = engine.journal
    tokens = {block.name: block.token_ids for block in old.base.contents}
    for request in (sample for group in _groups(old).values() for sample in group):
        if request.hooks:  # which may have changed what its blocks hold
            continue
        names = block_hashes(request.token_ids, size, salt=request.cache_salt)
        for index, name in enumerate(names):
            if name not in tokens and pool.find(name) is not None:
                tokens[name] = tuple(request.token_ids[: (index + 1) * size])
    for name, block_id in pool.named.items():
        if name not in tokens:
            pool.evict(block_id)
    num_requests, num_samples = engine.intake.numbers
    return Base(
        policy=pristine(engine.scheduler.policy),
        step=engine.scheduler.next_step,
        num_requests=num_requests,
        num_samples=num_samples,
        pool=pool.state(),
        contents=tuple(CachedBlock(i, name, tokens[name]) for name, i in pool.named.items()),
    )


def require_changeable(request: Request, params: SamplingParams) -> None:
    """Raise InvalidParameter unless a request that has begun can have these parameters."""
    if request.beam is not None or request.pooling is not None:
        raise InvalidParameter(
            f"{request.id} does not sample, so it has no parameters to change", param="params"
        )
    for name in _FIXED:
        if getattr(params, name) != getattr(request.params, name):
            raise InvalidParameter(
                f"{name} is fixed once {request.id} is in line; keep "
                f"{getattr(request.params, name)!r}, or add a new request",
                param=name,
            )


def _take_over(engine: Any, player: Player, *, now_s: float) -> None:
    past = player.engine
    cache, scheduler = past.cache, past.scheduler
    scheduler.policy_chosen = engine.scheduler.policy_chosen
    scheduler.policy_changed = engine.scheduler.policy_changed
    engine.cache, engine.scheduler = cache, scheduler
    engine.step_number, engine.leaders = past.step_number, past.leaders
    engine.use_clock(ShiftedClock(engine.clock, now_s))


def _groups(journal: Journal) -> dict[str, tuple[Request, ...]]:
    """Return all requests of a journal with their samples, by id of the first."""
    return {entry.samples[0].id: entry.samples for entry in journal if isinstance(entry, Added)}


def _numbers(journal: Journal, step: int, present: tuple[int, int]) -> tuple[int, int]:
    """Return the numbers that the next request and its first sample had before a step."""
    past = journal.before(step)
    next_request, next_sample = journal.base.num_requests, journal.base.num_samples
    for entry in past:
        if isinstance(entry, Added):
            next_request = max(next_request, _number(entry) + 1)
            next_sample = max(next_sample, entry.samples[-1].arrival_index + 1)
    later = [e for e in list(journal)[len(past) :] if isinstance(e, Added)]
    # A number may have gone to a request that was refused: then it is not given out again.
    first = min(later, key=_number, default=None)
    if first is None:
        return present
    after = _number(first), first.samples[0].arrival_index
    return max(next_request, after[0]), max(next_sample, after[1])


def _number(entry: Added) -> int:
    return int(entry.samples[0].id.removeprefix("req-"))
