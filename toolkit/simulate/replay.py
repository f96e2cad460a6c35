"""Look at a recorded run again: an engine at one of its steps, or the whole run on a model.

Both play the run's journal (`toolkit.engine.journal`) on an engine of their own. What the original
does meanwhile, and whether it still lives, does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.clock import Clock, RecordedClock, ShiftedClock, WallClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine, StepReport
from toolkit.engine.entries import Added, Entry, Stepped, pristine
from toolkit.engine.journal import Journal
from toolkit.engine.past import Player, reborn
from toolkit.engine.plan import Restoration
from toolkit.engine.restoration import Footprints
from toolkit.engine.rewind import now_of, played
from toolkit.errors import EngineError
from toolkit.record import Record
from toolkit.request import Request
from toolkit.simulate.texts import RecordedText

__all__ = [
    "RecordedEngine",
    "engine_at",
    "journal_of",
    "recorded_config",
    "recorded_engine",
    "replay",
]

# What decides about bits, beside the weights.
_ALIKE = ("model_fingerprint",)


class RecordedEngine(Engine):
    """An engine that goes through a recorded run a step at a time, without a model."""

    _player: Player | None = None
    _rest: list[Entry]

    def follow(self, player: Player, rest: list[Entry]) -> None:
        """Let ``step()`` play what was recorded next."""
        self._player, self._rest = player, rest

    def step(self) -> StepReport:
        """Show the next recorded step; raise EngineError where the recording ends."""
        player = self._player
        if player is None or player.is_playing:
            return super().step()
        if not any(isinstance(entry, Stepped) for entry in self._rest):
            raise EngineError(
                f"the recording ends before step {self.scheduler.next_step}; with "
                "engine_at(step, llm=...) a model goes on from there"
            )
        while True:
            report = player.play(self._rest.pop(0))
            if report is not None:
                return report


def engine_at(record: Record, step: int, llm: Any = None) -> Engine:
    """Return a separate engine at the moment before a step of a recorded run.

    It has requests, blocks and a sampler of its own, and a record that begins with the history up
    to there; the original may go on or serve meanwhile. Close it to give its KV cache back.

    Args:
        record: Live, frozen or loaded.
        step: Where it stands: just before that step.
        llm: Whose model goes on from there; the settings are the record's. By default the one that
            recorded the run, if it still lives; else there is no model, and the engine shows the
            recorded steps.

    Raises:
        EngineError: the step is out of reach, the model is another one or was loaded for shorter
            sequences, or the record has no journal.
    """
    journal = journal_of(record)
    model = _model(record, journal, llm)
    if model is None:
        return recorded_engine(record, step)
    _refuse_lost_code(journal)
    own = _history(record, journal)
    prepare = _attach(own, journal)
    player = played(_blank(record, journal, llm), journal, step, _restart(record, journal), prepare)
    runner = model.detached(recorded_config(record, journal), lambda: own.level == "explain")
    runner.restore(player.restoration())
    engine: Engine = player.engine
    engine.runner, engine.sampler = runner, getattr(runner, "sampler", None)
    engine.hooks = getattr(runner, "hooks", None)
    engine.use_clock(ShiftedClock(WallClock(), now_of(journal, step)))
    return engine


def recorded_engine(record: Record, step: int) -> RecordedEngine:
    """Return an engine at a recorded step that shows the steps after it, without a model."""
    journal = journal_of(record)
    prepare = _attach(_history(record, journal), journal)
    blank = _blank(record, journal, None)
    player = played(blank, journal, step, _restart(record, journal), prepare)
    rest = journal.entries[len(journal.before(step)) :]
    player.expect(rest)
    engine: RecordedEngine = player.engine
    engine.follow(player, rest)
    return engine


def replay(record: Record, llm: Any = None) -> Record:
    """Run what was recorded again, on the model: the same requests, at the same steps and times.

    On the same build and in batch-invariant mode the record that is returned has the same values,
    but for seconds. ``record.diff(other)`` tells where another build's comes out differently.

    Raises:
        EngineError: as for ``engine_at``; or there is no model.
    """
    journal = journal_of(record)
    model = _model(record, journal, llm)
    if model is None:
        raise EngineError("the engine that recorded this run is gone: give llm=")
    _refuse_lost_code(journal)
    own = _history(record, journal)
    runner = model.detached(recorded_config(record, journal), lambda: own.level == "explain")
    clock = RecordedClock()
    engine = _blank(record, journal, llm)(runner, clock)
    try:
        _attach(own, journal)(engine)
        player = Player(engine, clock, _restart(record, journal), prepares=True)
        player.begin(journal.base)
        footprints = Footprints(engine.cache.block_size)
        footprints.note_contents(journal.base.contents, engine.cache.num_blocks)
        steps = footprints.needed_for(engine.cache, (), whole=())
        runner.restore(Restoration(steps, (), tables={}, num_found={}, requests={}))
        player.play_all(journal)
        return own.freeze()
    finally:
        engine.close()


def journal_of(record: Record) -> Journal:
    """Return a copy of a record's journal.

    Raises:
        EngineError: it has none, or one that is damaged or of another version.
    """
    if not isinstance(record, Record):
        raise EngineError(
            f"{type(record).__name__} is no record: give run.record, or Record.load(path)"
        )
    journal = record.journal
    if isinstance(journal, Journal):
        engine = journal.engine()
        is_current = engine is not None and engine.journal is journal
        return engine.frozen_journal() if is_current else journal.frozen()
    if not journal:
        raise EngineError("this record has no journal, so its run cannot be played again")
    try:
        return Journal.from_json(journal)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise EngineError(f"the journal of this record is damaged: {error!r}") from error


def _model(record: Record, journal: Journal, llm: Any) -> Any:
    """Return the runner whose weights go on, None if there is none.

    Raises:
        EngineError: it has another model than the run.
    """
    engine = llm.engine if llm is not None else journal.engine()
    if engine is None or engine.is_closed or not hasattr(engine.runner, "detached"):
        if llm is not None:
            raise EngineError("this LLM is closed, or its engine has no model")
        return None
    if engine is not journal.engine() and engine.record is not None:
        here, there = record.environment, engine.record.environment
        unlike = [name for name in _ALIKE if here.get(name) != there.get(name)]
        if unlike:
            told = "; ".join(
                f"{n}: {here.get(n)!r} recorded, {there.get(n)!r} here" for n in unlike
            )
            raise EngineError(f"the run was recorded with another model ({told})")
    return engine.runner


def _blank(record: Record, journal: Journal, llm: Any) -> Callable[[Any, Clock], RecordedEngine]:
    source = journal.engine() if llm is None else llm.engine
    text = None if source is None else source.intake.text
    eos_token_ids = () if source is None else source.intake.eos_token_ids
    config = recorded_config(record, journal)

    def blank(runner: Any, clock: Clock) -> RecordedEngine:
        return RecordedEngine(
            runner,
            config,
            text=text,
            clock=clock,
            sampler=getattr(runner, "sampler", None),
            hooks=getattr(runner, "hooks", None),
            eos_token_ids=eos_token_ids,
        )

    return blank


def recorded_config(record: Record, journal: Journal) -> EngineConfig:
    """Return the settings of the engine that was recorded, whatever those of the LLM are."""
    values = record.config
    cache = CacheConfig(
        num_blocks=values["num_blocks"],
        block_size=values["block_size"],
        enable_prefix_caching=values["enable_prefix_caching"],
    )
    scheduler = SchedulerConfig(
        max_model_len=values["max_model_len"],
        max_num_seqs=values["max_num_seqs"],
        max_num_batched_tokens=values["max_num_batched_tokens"],
        asynchronous=values.get("asynchronous", False),
    )
    return EngineConfig(
        cache=cache,
        scheduler=scheduler,
        policy=pristine(journal.base.policy),
        seed=values["seed"],
        check_every_step=values["check_every_step"],
    )


def _history(record: Record, journal: Journal) -> Record:
    """Return a record with what was before the journal; the rest is recorded again."""
    if journal.first_step == 0:
        own = record.freeze()
        own.truncate(0)
        return own
    # It began with the first request that is in it; not with the step before which that came.
    first = next(entry for entry in journal if isinstance(entry, Added))
    return record.between(float("-inf"), first.queued_s - journal.origin_s)


def _attach(own: Record, journal: Journal) -> Callable[[Any], None]:
    def attach(engine: Any) -> None:
        engine.clock.now_s = journal.origin_s
        started_at, config = own.started_at, own.config
        own.attach(engine)
        own.started_at, own.config = started_at, config
        engine.record, own.journal = own, engine.journal
        engine.journal.origin_s = journal.origin_s

    return attach


def _restart(record: Record, journal: Journal) -> Callable[[Added], tuple[Request, ...]]:
    """Return how requests begin: where no tokenizer is left, with the texts of the tables."""

    def restart(entry: Added) -> tuple[Request, ...]:
        samples = reborn(entry)
        for sample, recorded in zip(samples, entry.samples, strict=True):
            text = _text(journal, recorded)
            if text is not None:  # an engine with a tokenizer will make its own instead
                sample.text = RecordedText(record.token_text, *text)
        return samples

    return restart


def _text(journal: Journal, recorded: Request) -> tuple[int | None, str] | None:
    """Return after how many tokens a stop string was complete, if one was; None without a text."""
    if journal.texts is not None and recorded.text is None:
        return journal.texts.get(recorded.id)
    if isinstance(recorded.stop_reason, str):
        return recorded.num_output_tokens, recorded.stop_reason
    return None if recorded.text is None else (None, "")


def _refuse_lost_code(journal: Journal) -> None:
    """Raise EngineError if a request ran code that the file does not have."""
    if journal.lost_code:
        lost = "; ".join(f"{name}: {what}" for name, what in journal.lost_code.items())
        raise EngineError(f"this run cannot be computed again: its code was not saved ({lost})")
