"""Journal: what went into an engine and what its runner answered, enough to derive every step anew.

Scheduler and block pool are functions of their inputs: requests, aborts, changes, times, and the
runner's results. So the engine writes down only these, in order, and `toolkit.engine.past` plays
them again; no state is ever copied. What is kept is bounded: beyond ``MAX_TOKENS`` or
``MAX_STEPS`` the older part is dropped at a moment when nothing is unfinished, and the journal
begins there, with the contents of the prefix cache.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from toolkit.engine.entries import (
    Added,
    Base,
    Changed,
    Ended,
    Entry,
    PolicyChosen,
    Reset,
    StepClock,
    Stepped,
    pristine,
)
from toolkit.engine.journal_json import (
    base_from_json,
    base_to_json,
    entry_from_json,
    entry_to_json,
)
from toolkit.engine.plan import SampledToken, StepPlan, StepResult
from toolkit.errors import EngineError
from toolkit.request import Request, SamplingParams

__all__ = ["Journal", "NoJournal"]

# A token takes some 50 bytes with its share of a step, a request a few kilobytes: 50 MB or so.
MAX_TOKENS = 500_000
MAX_STEPS = 200_000

VERSION = 1
_PLAIN = SampledToken(0)[1:]


class Journal:
    """The inputs and results of one engine, in order.

    Args:
        policy: The policy that the engine begins with; it must not have been asked yet.
    """

    def __init__(self, policy: Any) -> None:
        self.base = Base(pristine(policy))
        self._entries: list[Entry] = []
        self._places: list[int] = []  # of the steps among the entries
        self._num_tokens = 0
        self._last: Stepped | None = None
        self._is_broken = False
        self.origin_s = 0.0  # the time that tables call 0
        # Whose journal it is, for as long as it lives: what shares its weights asks it.
        self.engine: Callable[[], Any] = lambda: None
        # What a file keeps in place of objects: who had a text, after how many tokens of it which
        # stop string was complete, if one was; and the code that a request or policy ran.
        self.texts: dict[str, tuple[int | None, str]] | None = None
        self.lost_code: dict[str, str] = {}

    @property
    def first_step(self) -> int:
        """The first step that can be gone back to."""
        return self.base.step

    @property
    def next_step(self) -> int:
        """The step that would be written down next."""
        return self.base.step + len(self._places)

    @property
    def is_long(self) -> bool:
        """Whether the older part is to go, once nothing is unfinished."""
        return self._is_broken or self._num_tokens > MAX_TOKENS or len(self._places) > MAX_STEPS

    @property
    def entries(self) -> list[Entry]:
        """A copy of all entries, in order."""
        return list(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    # ---- writing

    def added(self, samples: tuple[Request, ...], queued_s: float) -> None:
        """Note that a request joined the line."""
        first = samples[0]
        params = tuple([sample.params for sample in samples])
        self._entries.append(
            Added(samples, queued_s, first.priority, dict(first.tags), params, first.max_tokens)
        )
        self._num_tokens += first.num_prompt_tokens

    def note(self, entry: Changed | Ended | PolicyChosen | Reset) -> None:
        """Note what happened between two steps."""
        self._entries.append(entry)

    def stepped(
        self,
        plan: StepPlan,
        result: StepResult,
        clock: StepClock,
        *,
        refused: list[tuple[str, str]],
        is_lost: bool,
    ) -> None:
        """Note a step; one that follows a step that broke off makes the journal useless so far."""
        last = self._last
        chunk_ids = tuple([chunk[0] for chunk in plan.chunks])
        if last is not None and last.chunk_ids == chunk_ids:
            chunk_ids = last.chunk_ids
        tokens = result.tokens
        others = (
            {}
            if _are_plain(tokens)
            else {n: own for n, own in tokens.items() if not _is_plain(own)}
        )
        if others:
            tokens = {name: own for name, own in tokens.items() if name not in others}
        sampled_ids = tuple(tokens)
        self._is_broken |= plan.step != self.next_step
        unready = [name for name, cause in refused if cause == "grammar"] if refused else ()
        entry = Stepped(
            step=plan.step,
            clock=clock,
            chunk_ids=chunk_ids,
            ends=array("q", [chunk[2] for chunk in plan.chunks]),
            sampled_ids=chunk_ids if sampled_ids == chunk_ids else sampled_ids,
            token_ids=array("q", [own[0][0] for own in tokens.values()]),
            others=others,
            errors=result.errors,
            prompt_scores=result.prompt_scores,
            embeddings=result.embeddings,
            times=result.times,
            slow_path=result.slow_path,
            unready_ids=frozenset(unready),
            is_lost=is_lost,
        )
        self._places.append(len(self._entries))
        self._entries.append(entry)
        self._num_tokens += len(result.tokens)
        self._last = entry

    def starting_at(self, base: Base) -> Journal:
        """Return a journal that begins now: nothing is unfinished, ``base`` says what is left."""
        return self._with([], base)

    # ---- reading

    def require(self, step: int) -> None:
        """Raise EngineError unless the moment before ``step`` can be reached."""
        if isinstance(step, bool) or not isinstance(step, int):
            raise TypeError(f"a step is an integer, not {step!r:.80}")
        if self._is_broken:
            raise EngineError(
                "a step broke off, so what came before cannot be derived again; going back is "
                "possible from the next moment on at which nothing is unfinished"
            )
        if not self.first_step <= step <= self.next_step:
            raise EngineError(
                f"step {step} is out of reach: the journal goes from step {self.first_step} to "
                f"step {self.next_step}, which is next"
            )

    def before(self, step: int) -> list[Entry]:
        """Return all that happened before a step; what was put in line just before it included."""
        self.require(step)
        if step == self.next_step:
            return list(self._entries)
        return self._entries[: self._places[step - self.base.step]]

    def changed_params(self, request: Request, position: int) -> SamplingParams | None:
        """Return what was in force when a token was drawn, None if nothing was ever changed.

        Args:
            request: One of the journal's own objects.
            position: Of the token, from the prompt's first on.
        """
        names = (request.id, request.samples[0].id)
        entries = list(self._entries)
        if not any(isinstance(e, Changed) and e.params and e.request_id in names for e in entries):
            return None
        params, num_tokens = request.params, request.num_prompt_tokens
        for entry in entries:
            if isinstance(entry, Added) and request in entry.samples:
                params = entry.params[entry.samples.index(request)]
            elif isinstance(entry, Stepped):
                num_tokens += request.id in entry.sampled_ids or request.id in entry.others
            elif isinstance(entry, Changed) and entry.request_id in names:
                if num_tokens > position:
                    break
                params = entry.params or params
        return params

    def frozen(self, step: int | None = None) -> Journal:
        """Return a copy that ends before ``step``, or that goes on no more."""
        return self._with(list(self._entries) if step is None else self.before(step), self.base)

    # ---- files

    def to_json(self) -> dict[str, Any]:
        """Return plain values; code that requests or policies ran is only named."""
        texts, lost = dict(self.texts or {}), dict(self.lost_code)
        return {
            "version": VERSION,
            "origin_s": self.origin_s,
            "base": base_to_json(self.base, lost),
            "entries": [entry_to_json(entry, texts, lost) for entry in self.entries],
            "texts": texts,
            "lost_code": lost,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Journal:
        """Return the journal of which ``to_json`` made plain values.

        Raises:
            EngineError: a newer version wrote them, or they name a policy that is code.
        """
        if values.get("version") != VERSION:
            raise EngineError(
                f"this journal has version {values.get('version')!r}, not {VERSION}: it was "
                "written by another version of the toolkit"
            )
        base = base_from_json(values["base"])
        journal = cls(base.policy)
        journal.base, journal.origin_s = base, values["origin_s"]
        journal.texts = {name: (num, stop) for name, (num, stop) in values["texts"].items()}
        journal.lost_code = dict(values["lost_code"])
        for entry in values["entries"]:
            journal.take(entry_from_json(entry))
        return journal

    def _with(self, entries: list[Entry], base: Base) -> Journal:
        copy = Journal(base.policy)
        copy.base, copy.origin_s, copy.engine = base, self.origin_s, self.engine
        copy.texts, copy.lost_code = self.texts, self.lost_code
        copy._is_broken = self._is_broken and base is self.base
        for entry in entries:
            copy.take(entry)
        return copy

    def take(self, entry: Entry) -> None:
        """Append an entry of another journal."""
        if isinstance(entry, Stepped):
            self._places.append(len(self._entries))
            self._num_tokens += len(entry.sampled_ids) + len(entry.others)
            self._last = entry
        elif isinstance(entry, Added):
            self._num_tokens += entry.samples[0].num_prompt_tokens
        self._entries.append(entry)

    def __repr__(self) -> str:
        return f"Journal(steps {self.first_step} to {self.next_step - 1}, {len(self)} entries)"


class NoJournal(Journal):
    """Writes nothing down: for an engine that nobody will take back, which is so much the faster.

    ``Engine(journal=NoJournal())``; ``engine.rewind`` and ``record.engine_at`` say so.
    """

    def __init__(self) -> None:
        super().__init__("fcfs")

    def added(self, samples: tuple[Request, ...], queued_s: float) -> None:
        """Forget a request."""

    def note(self, entry: Changed | Ended | PolicyChosen | Reset) -> None:
        """Forget what happened between two steps."""

    def stepped(
        self,
        plan: StepPlan,
        result: StepResult,
        clock: StepClock,
        *,
        refused: list[tuple[str, str]],
        is_lost: bool,
    ) -> None:
        """Forget a step."""

    def require(self, step: int) -> None:
        """Raise EngineError: no moment can be reached."""
        raise EngineError(
            "this engine keeps no journal, so it cannot go back; on a simulated machine, "
            "machine.engine(keeps_journal=True) does"
        )


def _is_plain(tokens: tuple[SampledToken, ...]) -> bool:
    return len(tokens) == 1 and tokens[0][1:] == _PLAIN


def _are_plain(tokens: Mapping[str, tuple[SampledToken, ...]]) -> bool:
    """Whether all are single and nothing but an id: by columns, since it is asked every step."""
    num_rows = len(tokens)
    if sum(map(len, tokens.values())) != num_rows:
        return False
    columns = [*zip(*[own[0] for own in tokens.values()], strict=True)][1:]
    pairs = zip(columns, _PLAIN, strict=False)
    return all(column.count(value) == num_rows for column, value in pairs)
