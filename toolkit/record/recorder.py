"""Listen to an engine and write down what happens, at the level of detail that is asked for.

Writing appends to typed columns (`toolkit.record.log`); nothing is computed that a reader can
compute later. All times are seconds since the recorder was attached.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from toolkit.engine.events import (
    Aborted,
    EnginePaused,
    Failed,
    Finished,
    PolicyChanged,
    Preempted,
    PrefixHit,
    Rejected,
    RequestAdded,
    Resumed,
    SampledToken,
    StepFinished,
    StepReport,
)
from toolkit.record.facts import Facts
from toolkit.record.holdings import HOLDING_KINDS, Holdings
from toolkit.record.host_gap import HostGap
from toolkit.record.log import Log
from toolkit.record.rows import REQUEST_KINDS, STEP_KINDS, request_row, step_row
from toolkit.request import Request

__all__ = ["LEVELS", "MAX_ROWS", "SOURCES", "TABLE_KINDS", "LiveRequest", "Logs", "Recorder"]

LEVELS = ("requests", "tokens", "blocks", "explain")
SOURCES = ("sampled", "greedy", "grammar", "draft", "forced")
_SOURCE_CODES = {source: code for code, source in enumerate(SOURCES)}

# The oldest rows of each table go first. With the bytes that a row takes: less than 900 MB if all
# are full, and facts (MAX_FACT_BYTES) beside.
MAX_ROWS = {
    "steps": 1_000_000,  # 224 bytes
    "chunks": 4_000_000,  # 21
    "requests": 200_000,  # ended ones; 360, and some 700 in ids, tags and errors
    "tokens": 2_000_000,  # 85
    "blocks": 1_000_000,  # 70
    "events": 1_000_000,  # 36
}
CHUNK_KINDS = {"step": "q", "request_id": "n", "start": "i", "end": "i", "is_recomputed": "b"}
TOKEN_KINDS = {
    "request_id": "n",
    "index": "i",
    "position": "i",
    "step": "q",
    "token_id": "q",
    "sampled_s": "d",
    "sent_s": "d",
    "itl_s": "d",
    "logprob_raw": "d",
    "logprob_processed": "d",
    "rank_raw": "q",
    "entropy_nats": "d",
    "source": "b",  # its place in SOURCES
}
EVENT_KINDS = {
    "time_s": "d",
    "step": "q",
    "kind": "n",
    "request_id": "n",
    "block_id": "q",
    "detail": "n",
}
TABLE_KINDS = {
    "steps": STEP_KINDS,
    "chunks": CHUNK_KINDS,
    "requests": REQUEST_KINDS,
    "tokens": TOKEN_KINDS,
    "blocks": HOLDING_KINDS,
    "events": EVENT_KINDS,
}
# Causes of one request's own; the others hold for the whole line.
_OWN_CAUSES = frozenset(("policy", "sibling", "grammar"))
_NAN = float("nan")


class Logs(dict[str, Log]):
    """The rows of all tables, by name; ``requests`` has those that ended."""

    def __init__(self) -> None:
        super().__init__(
            {name: Log(kinds, max_rows=MAX_ROWS[name]) for name, kinds in TABLE_KINDS.items()}
        )


class WatchedEngine(Protocol):
    """What the recorder reads of an engine."""

    clock: Any
    scheduler: Any
    cache: Any
    config: Any
    step_number: int

    def on(self, kind: type[Any], listener: Callable[[Any], object]) -> Callable[[], None]:
        """Subscribe to events."""
        ...


class LiveRequest:
    """A request that has not ended, and what its row and its tokens need beside it."""

    __slots__ = ("added_step", "num_prompt", "request", "sent_s", "source")

    def __init__(self, request: Request, added_step: int) -> None:
        self.request = request
        self.added_step = added_step
        self.num_prompt = request.num_prompt_tokens
        self.source = _SOURCE_CODES["greedy" if request.params.is_greedy else "sampled"]
        self.sent_s: array[float] = array("d")  # of each token

    def row(self, origin_s: float, *, ended_step: int = -1) -> tuple[Any, ...]:
        """Return its row as it is now."""
        return request_row(
            self.request,
            origin_s,
            sent_s=self.sent_s,
            added_step=self.added_step,
            ended_step=ended_step,
        )


class Recorder:
    """Writes the logs of one engine, on the engine's thread.

    Args:
        engine: What to listen to.
        logs: Where to write.
        facts: Where to write what the sampler says of single tokens.
        level: One of LEVELS.
    """

    def __init__(self, engine: WatchedEngine, logs: Logs, facts: Facts, level: str) -> None:
        self.logs, self.facts = logs, facts
        self.origin_s: float = engine.clock.now()
        self.live: dict[str, LiveRequest] = {
            request.id: LiveRequest(request, engine.step_number)
            for request in engine.scheduler.unfinished
        }
        self._engine = engine
        self._host_gap = HostGap()
        self._ended: list[tuple[LiveRequest, int]] = []  # in a step whose report is still to come
        self._own_causes: dict[str, str] = {}
        self.holdings = Holdings(engine, logs["blocks"], logs["events"], self.origin_s)
        engine.on(RequestAdded, self._on_added)
        engine.on(StepFinished, self._on_step)
        ends: tuple[type[Any], ...] = (Finished, Failed, Aborted)
        for kind in ends:
            engine.on(kind, self._on_end)
        others: tuple[type[Any], ...] = (Rejected, Preempted, Resumed, PrefixHit)
        for kind in (*others, PolicyChanged, EnginePaused):
            engine.on(kind, self._on_other)
        self.level = level

    @property
    def level(self) -> str:
        """How much is kept; changing it holds from the next event on."""
        return LEVELS[self._depth]

    @level.setter
    def level(self, level: str) -> None:
        self._depth = LEVELS.index(level)
        self.holdings.listen(wanted=self._depth >= LEVELS.index("blocks"))

    def ttft_s(self, request_ids: Iterable[str]) -> dict[str, float]:
        """Return seconds from arrival to first token of those that live and have one."""
        found = {}
        for name in request_ids:
            live = self.live.get(name)
            if live is not None and live.request.first_token_s is not None:
                found[name] = live.request.first_token_s - live.request.arrival_s
        return found

    def rows_of_live(self) -> list[tuple[Any, ...]]:
        """Return the rows of requests whose row is not in the log, as they are now."""
        return [live.row(self.origin_s) for live in list(self.live.values())]

    def reload(self, unfinished: Iterable[Request], added_steps: Mapping[str, int]) -> None:
        """Go on from rows of which the last were taken back, with these requests unfinished."""
        self._ended.clear()
        self._own_causes.clear()
        self.live = {
            request.id: LiveRequest(request, added_steps.get(request.id, 0))
            for request in unfinished
        }
        tokens = self.logs["tokens"].read()
        for name, sent_s in zip(tokens["request_id"], tokens["sent_s"].tolist(), strict=True):
            if name in self.live:
                self.live[name].sent_s.append(sent_s)
        self.holdings.reload()

    # ---- requests

    def _on_added(self, event: RequestAdded) -> None:
        self._host_gap.on_added(event.time_s)
        self.live[event.request_id] = LiveRequest(event.request, event.step)
        self._note(event.time_s, event.step, "added", event.request_id)

    def _on_end(self, event: Finished | Failed | Aborted) -> None:
        live = self.live.get(event.request_id)
        if live is None:
            return
        if isinstance(event, Aborted):
            self._note(event.time_s, event.step, "aborted", event.request_id, event.by)
            self._end(live, event.step)
            return
        is_failed = isinstance(event, Failed)
        detail = repr(event.error) if isinstance(event, Failed) else event.reason
        self._note(
            event.time_s, event.step, "failed" if is_failed else "finished", live.request.id, detail
        )
        self._ended.append((live, event.step))  # its last tokens come with the step's report

    def _end(self, live: LiveRequest, step: int) -> None:
        self.logs["requests"].append(live.row(self.origin_s, ended_step=step))
        self.live.pop(live.request.id, None)
        self._own_causes.pop(live.request.id, None)

    # ---- steps

    def _on_step(self, event: StepFinished) -> None:
        report = event.report
        live = self.live
        names, *_ = zip(*report.plan.chunks, strict=True) if report.plan.chunks else ((),)
        num_prompts = [live[name].num_prompt if name in live else 0 for name in names]
        gap_s = self._host_gap.on_step(
            start_s=report.start_s,
            end_s=report.sent_s,
            has_work=self._engine.scheduler.has_work,
        )
        row = step_row(report, self.origin_s, host_gap_s=gap_s, num_prompts=num_prompts)
        self.logs["steps"].append(row)
        if self._depth and report.plan.chunks:
            self._keep_chunks(report)
        if report.updates:
            self._keep_tokens(report)
        if report.waiting or report.stalled or self._own_causes:
            self._keep_causes(report, names)
        self.holdings.on_step(report.plan)
        if self._ended:
            for ended, step in self._ended:
                self._end(ended, step)
            self._ended.clear()

    def _keep_chunks(self, report: StepReport) -> None:
        names, starts, ends, *_ = zip(*report.plan.chunks, strict=True)
        count = len(names)
        again: Iterable[int] = _zeros(count)
        if report.num_recomputed_tokens:
            live = self.live
            again = [
                name in live and start < live[name].request.num_lost_tokens
                for name, start in zip(names, starts, strict=True)
            ]
        steps = array("q", (report.step,)) * count
        self.logs["chunks"].extend(count, (steps, names, starts, ends, again))

    def _keep_tokens(self, report: StepReport) -> None:
        sent_s = report.sent_s - self.origin_s
        names: list[str] = []
        indices: list[int] = []
        positions: list[int] = []
        gaps: list[float] = []
        sources: list[int] = []
        tokens: list[SampledToken] = []
        for update in report.updates:
            live = self.live.get(update.request_id)
            if live is None:
                continue
            index, times, source = update.first_index, live.sent_s, live.source
            for token in update.tokens:
                names.append(update.request_id)
                indices.append(index)
                positions.append(live.num_prompt + index)
                gaps.append(sent_s - times[-1] if times else _NAN)
                times.append(sent_s)
                sources.append(source if token.source is None else _SOURCE_CODES[token.source])
                tokens.append(token)
                index += 1
        if not self._depth or not names:
            return
        count = len(names)
        self.logs["tokens"].extend(
            count,
            (
                names,
                indices,
                positions,
                array("q", (report.step,)) * count,
                [token[0] for token in tokens],
                array("d", (report.end_s - report.update_s - self.origin_s,)) * count,
                array("d", (sent_s,)) * count,
                gaps,
                *_scores(tokens),
                sources,
            ),
        )
        for name, position, token in zip(names, positions, tokens, strict=True):
            if token.facts is not None:
                self.facts.put(name, position, token.facts)

    def _keep_causes(self, report: StepReport, computed: Iterable[str]) -> None:
        """Write down whose cause of waiting changed, where it is not that of the whole line."""
        # Of the line's causes too, where the engine insisted on a chunk and so changed the step's.
        own = {
            name: cause
            for name, cause in report.waiting
            if cause in _OWN_CAUSES or cause != report.plan.limited_by
        }
        own.update(report.stalled)
        before, self._own_causes = self._own_causes, own
        for name, cause in own.items():
            if before.get(name) != cause:
                self._note(report.start_s, report.step, "waited", name, cause)
        over = before.keys() - own.keys()
        for name in sorted(over.difference(computed)) if over else ():
            if name in self.live and self.live[name].request.first_token_s is None:
                self._note(report.start_s, report.step, "waited", name, "line")

    # ---- other events

    def _on_other(self, event: Any) -> None:
        name: str | None = getattr(event, "request_id", None)
        kind, detail = "resumed", None
        if isinstance(event, Rejected):
            kind, detail = "rejected", repr(event.error)
        elif isinstance(event, Preempted):
            kind, detail = "preempted", f"{event.cause}/{event.victim_of}"
        elif isinstance(event, PrefixHit):
            kind, detail = "prefix_hit", str(event.num_tokens)
        elif isinstance(event, PolicyChanged):
            kind, detail = "policy_changed", f"{event.old}/{event.new}"
        elif isinstance(event, EnginePaused):
            kind = "paused"
            self._host_gap.on_paused()
        self._note(event.time_s, event.step, kind, name, detail)

    def _note(
        self,
        time_s: float,
        step: int,
        kind: str,
        request_id: str | None = None,
        detail: str | None = None,
    ) -> None:
        row = (time_s - self.origin_s, step, kind, request_id, -1, detail)
        self.logs["events"].append(row)


def _scores(tokens: list[SampledToken]) -> Iterable[Iterable[Any]]:
    """Return columns logprob_raw, logprob_processed, rank_raw and entropy_nats."""
    if not any(token[1] or token[4] is not None for token in tokens):
        nulls = _nulls(len(tokens))
        return nulls, nulls, _zeros(len(tokens)), nulls
    entries = [(token[1] or {}).get(token[0]) for token in tokens]
    return (
        [_NAN if entry is None else entry.logprob for entry in entries],
        [
            _NAN if entry is None or entry.logprob_processed is None else entry.logprob_processed
            for entry in entries
        ],
        [0 if entry is None else entry.rank or 0 for entry in entries],
        [_NAN if token.entropy_nats is None else token.entropy_nats for token in tokens],
    )


@lru_cache(maxsize=256)
def _nulls(count: int) -> array[float]:
    return array("d", (_NAN,)) * count


@lru_cache(maxsize=256)
def _zeros(count: int) -> list[int]:
    return [0] * count
