"""Listen to an engine and write down what happens, at the level of detail that is asked for.

Writing appends to typed columns (`toolkit.record.log`); nothing is computed that a reader can
compute later. All times are seconds since the recorder was attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from toolkit.record.holdings import Holdings
from toolkit.record.host_gap import HostGap
from toolkit.record.layout import LEVELS, Logs
from toolkit.record.live_requests import Batch, LiveRequest
from toolkit.record.rows import step_row
from toolkit.record.token_rows import chunk_columns, gaps, new_tokens, token_columns
from toolkit.request import Request

__all__ = ["Recorder", "WatchedEngine"]

# Causes of one request's own; the others hold for the whole line.
_OWN_CAUSES = frozenset(("policy", "sibling", "grammar"))
_NOBODY = Batch((), {})


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
        self._computed = self._answered = _NOBODY  # in the last step
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
        self._computed = self._answered = _NOBODY
        self.live = {
            request.id: LiveRequest(request, added_steps.get(request.id, 0))
            for request in unfinished
        }
        # What the step before was planned by: whoever still waits for the same is no news.
        last = self._engine.scheduler.last_decision
        own = _own_causes(last.refused, last.stalled, limited_by=last.limited_by)
        self._own_causes = {name: cause for name, cause in own.items() if name in self.live}
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
        chunks = report.plan.chunks
        names, starts, ends, *_ = zip(*chunks, strict=True) if chunks else ((), (), ())
        if names != self._computed.names:
            self._computed = Batch(names, self.live)
        gap_s = self._host_gap.on_step(
            start_s=report.start_s,
            end_s=report.sent_s,
            has_work=self._engine.scheduler.has_work,
        )
        num_prompt = self._computed.num_prompt_tokens(starts, ends)
        row = step_row(report, self.origin_s, host_gap_s=gap_s, num_prompt=num_prompt)
        self.logs["steps"].append(row)
        if self._depth and names:
            is_again = self._computed_again(starts) if report.num_recomputed_tokens else None
            columns = chunk_columns(report.step, (names, starts, ends), is_again)
            self.logs["chunks"].extend(len(names), columns)
        if report.updates:
            self._keep_tokens(report)
        if report.waiting or report.stalled or self._own_causes:
            self._keep_causes(report, names)
        self.holdings.on_step(report.plan)
        if self._ended:
            for ended, step in self._ended:
                self._end(ended, step)
            self._ended.clear()
            self._computed = self._answered = _NOBODY

    def _computed_again(self, starts: Sequence[int]) -> list[bool]:
        live = [self.live.get(name) for name in self._computed.names]
        return [
            one is not None and start < one.request.num_lost_tokens
            for one, start in zip(live, starts, strict=True)
        ]

    def _keep_tokens(self, report: StepReport) -> None:
        names, indices, _, _, _, answers = zip(*report.updates, strict=True)
        tokens: Sequence[SampledToken] = [answer[0] for answer in answers if len(answer) == 1]
        if len(tokens) != len(names) or not self._of(names).is_known:
            names, indices, tokens = new_tokens(report.updates, self.live)
        batch, sent_s = self._of(names), report.sent_s - self.origin_s
        if not self._depth or not tokens:
            for times in batch.sent_s:
                times.append(sent_s)
            return
        itl_s = gaps(batch, sent_s)
        columns, facts = token_columns(
            report, batch, self.origin_s, indices=indices, tokens=tokens, itl_s=itl_s
        )
        self.logs["tokens"].extend(len(tokens), columns)
        for request_id, position, own in facts:
            self.facts.put(request_id, position, own)

    def _of(self, names: tuple[str, ...]) -> Batch:
        """Return the requests with these names, side by side."""
        if names == self._computed.names:
            return self._computed
        if names != self._answered.names:
            self._answered = Batch(names, self.live)
        return self._answered

    def _keep_causes(self, report: StepReport, computed: Iterable[str]) -> None:
        """Write down whose cause of waiting changed, where it is not that of the whole line."""
        own = _own_causes(report.waiting, report.stalled, limited_by=report.plan.limited_by)
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


def _own_causes(
    waiting: Iterable[tuple[str, str]], stalled: Iterable[tuple[str, str]], *, limited_by: str
) -> dict[str, str]:
    """Return who waits for something that is not the whole line's cause, and for what."""
    # Of the line's causes too, where the engine insisted on a chunk and so changed the step's.
    own = {n: cause for n, cause in waiting if cause in _OWN_CAUSES or cause != limited_by}
    own.update(stalled)
    return own
