"""Keep each request's account of time, exact to the float, at a cost that the queue does not raise.

From the moment it stands in line until its first token, every second of a request's is charged to
one thing, and so the parts add up to its time to first token:

    a step while it waits, or runs without a chunk    what kept it: ``waits_s[cause]``
    a step that computes for it                       ``prefill_s``
    from the step that takes its blocks until it has  ``preempted_s`` (after the first token too)
    caught up, gaps included
    everything else: arriving, the gaps between       ``waits_s["host"]``
    steps, pauses

A step that leaves requests waiting has one cause ("budget", "seqs", "blocks", "policy"), which
holds for the whole line. So seconds per cause are summed once for everybody, and a request's share
is the difference between leaving and joining the line. The few requests that were refused for a
cause of their own are corrected one by one, and so are the few that run and have no token yet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from toolkit.engine.plan import ScheduledChunk
from toolkit.request import WAIT_CAUSES, Request, Status

__all__ = ["Ledger"]


class Ledger:
    """Where the time of the requests of one engine goes."""

    def __init__(self) -> None:
        self._totals_s = dict.fromkeys(WAIT_CAUSES, 0.0)
        self._waiting: dict[str, tuple[Request, dict[str, float]]] = {}  # totals when it joined
        self._unseen: dict[str, Request] = {}  # joined since the last step
        self._starting: dict[str, Request] = {}  # running, without a token yet
        self._behind: dict[str, tuple[Request, float]] = {}  # preempted, and since when
        self._ended: list[Request] = []  # in this step, which is charged to them too
        self._last_s = 0.0  # until when everything is charged
        self._is_in_step = False

    def join(self, request: Request) -> None:
        """A request joins the line; what came before, making tokens aside, is the host's."""
        assert request.queued_s is not None
        _add(request, "host", request.queued_s - request.arrival_s - request.tokenize_s)
        self._unseen[request.id] = request

    def break_off(self, now_s: float) -> None:
        """Close a step that raised; harmless between two steps."""
        if self._is_in_step:
            self.end_step((), now_s)

    def begin_step(self, now_s: float) -> None:
        """Charge the gap since the last step to the host."""
        self.break_off(now_s)
        self._charge_gap(now_s)
        for request in self._unseen.values():
            assert request.queued_s is not None
            _add(request, "host", now_s - request.queued_s)
            self._waiting[request.id] = request, dict(self._totals_s)
        self._unseen.clear()
        self._is_in_step = True

    def start(self, request: Request) -> None:
        """A request starts to run in this step, or runs again."""
        self._leave_line(request)
        if request.first_token_s is None and request.id not in self._behind:
            self._starting[request.id] = request

    def preempt(self, request: Request) -> None:
        """A request loses its blocks in this step: until it has caught up, nothing else counts."""
        self._starting.pop(request.id, None)
        self._behind.setdefault(request.id, (request, self._last_s))

    def end_step(
        self,
        chunks: Sequence[ScheduledChunk],
        end_s: float,
        *,
        limited_by: str = "none",
        refused: Sequence[tuple[str, str]] = (),
        skipped: Collection[str] = (),
        stalled: list[tuple[str, str]] | None = None,
    ) -> None:
        """Charge a step, from its begin to its end.

        Args:
            chunks: What it computed.
            end_s: When its results were taken in.
            limited_by: What kept more from running.
            refused: Request ids that have a cause of their own to wait, with the cause.
            skipped: Those that run and were given no token by the policy.
            stalled: Takes up those that run, have no token yet and got no chunk, with the cause.
        """
        duration_s = end_s - self._last_s
        line_cause = limited_by if limited_by in self._totals_s else "host"
        self._totals_s[line_cause] += duration_s
        for request_id, own_cause in refused:
            # Waiting for a sibling's prompt is a rule of the scheduler's, so it counts as one.
            cause = "policy" if own_cause == "sibling" else own_cause
            if cause != line_cause and request_id in self._waiting:
                request, _ = self._waiting[request_id]
                _add(request, cause, duration_s)
                _add(request, line_cause, -duration_s)
        if self._starting or self._behind:
            open_ids = self._starting.keys() | self._behind.keys()
            spans = {chunk[0]: (chunk[1], chunk[2]) for chunk in chunks if chunk[0] in open_ids}
            caught_up = self._catch_up(spans, end_s)
            for request in self._starting.values():
                if request.id in spans:
                    request.prefill_s += duration_s
                else:
                    cause = "policy" if request.id in skipped else line_cause
                    _add(request, cause, duration_s)
                    if stalled is not None:
                        stalled.append((request.id, cause))
            self._starting.update(caught_up)
        self._last_s = end_s
        self._is_in_step = False
        for request in self._ended:
            self.leave(request, end_s)
        self._ended.clear()

    def end(self, request: Request, now_s: float) -> None:
        """A request ends: between two steps at once, inside one when that is charged."""
        if self._is_in_step:
            self._ended.append(request)
        else:
            self.leave(request, now_s)

    def leave(self, request: Request, now_s: float) -> None:
        """Close a request's account, or what of it ends with the first token; harmless again."""
        gap_s = max(0.0, now_s - self._last_s)
        if self._unseen.pop(request.id, None) is not None:
            assert request.queued_s is not None
            _add(request, "host", now_s - request.queued_s)
        elif request.id in self._waiting:
            self._leave_line(request)
            _add(request, "host", gap_s)
        elif self._starting.pop(request.id, None) is not None:
            _add(request, "host", gap_s)
        elif request.id in self._behind:
            self._settle_behind(request, max(now_s, self._last_s))

    def _charge_gap(self, now_s: float) -> None:
        gap_s = now_s - self._last_s
        self._totals_s["host"] += gap_s
        for request in self._starting.values():
            _add(request, "host", gap_s)
        self._last_s = now_s

    def _catch_up(
        self, spans: dict[str, tuple[int, int]], end_s: float
    ) -> list[tuple[str, Request]]:
        """Settle with those that computed again what they had lost, or found it in the cache.

        Return who has caught up with this step and goes on towards its first token.
        """
        caught_up = []
        for request, _ in list(self._behind.values()):
            span = spans.get(request.id)
            if span is None or request.status is Status.PREEMPTED:
                continue
            start, end = span
            if start >= request.num_lost_tokens:  # so this step computes what is new
                self._settle_behind(request, self._last_s)
                if request.first_token_s is None:
                    self._starting[request.id] = request
            elif end >= request.num_lost_tokens:
                self._settle_behind(request, end_s)
                if request.first_token_s is None:
                    caught_up.append((request.id, request))
        return caught_up

    def _settle_behind(self, request: Request, until_s: float) -> None:
        _, since_s = self._behind.pop(request.id)
        request.preempted_s += until_s - since_s
        if request.first_token_s is None:
            request.preempted_before_first_s += until_s - since_s

    def _leave_line(self, request: Request) -> None:
        left = self._waiting.pop(request.id, None)
        if left is not None:
            for cause, total_s in self._totals_s.items():
                if total_s != left[1][cause]:
                    _add(request, cause, total_s - left[1][cause])


def _add(request: Request, cause: str, seconds: float) -> None:
    request.waits_s[cause] = request.waits_s.get(cause, 0.0) + seconds
