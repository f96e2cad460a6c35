"""Tell how long each request waited and for what, in O(1) per request and step.

A step that leaves requests waiting has one cause ("budget", "seqs", "blocks"), which holds for the
whole line until the next step. So seconds per cause are summed once for everybody, and a request's
share is the difference between leaving and joining the line. The few requests that were refused
for a cause of their own ("policy") are corrected one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from toolkit.request import WAIT_CAUSES, Request

__all__ = ["WaitClock"]


class WaitClock:
    """Seconds spent in line, by cause."""

    def __init__(self) -> None:
        self._totals_s = dict.fromkeys(WAIT_CAUSES, 0.0)
        self._joined: dict[str, dict[str, float]] = {}
        self._unseen: dict[str, Request] = {}
        self._last_s: float | None = None
        self._cause = "host"
        self._own_causes: dict[str, str] = {}

    def join(self, request: Request) -> None:
        """A request joins the line; it is seen by the next step."""
        self._unseen[request.id] = request

    def begin_step(self, now_s: float, waiting: Mapping[str, Request]) -> None:
        """Charge the time since the last step to what that step was limited by."""
        if self._last_s is not None:
            elapsed_s = now_s - self._last_s
            self._totals_s[self._cause] += elapsed_s
            for request_id, own_cause in self._own_causes.items():
                request = waiting.get(request_id)
                # Waiting for a sibling's prompt is a rule of the scheduler's, so it counts as one.
                cause = "policy" if own_cause == "sibling" else own_cause
                if request is not None and cause != self._cause and request_id in self._joined:
                    _add(request, cause, elapsed_s)
                    _add(request, self._cause, -elapsed_s)
        self._last_s = now_s
        for request in self._unseen.values():
            joined_s = now_s if request.queued_s is None else request.queued_s
            _add(request, "host", max(0.0, now_s - joined_s))
            self._joined[request.id] = dict(self._totals_s)
        self._unseen.clear()

    def end_step(self, limited_by: str, own_causes: Iterable[tuple[str, str]]) -> None:
        """Remember what kept the line waiting in this step."""
        self._cause = limited_by if limited_by in self._totals_s else "host"
        self._own_causes = dict(own_causes)

    def leave(self, request: Request) -> None:
        """A request starts to run, or ends while it waits: settle its account."""
        joined = self._joined.pop(request.id, None)
        if joined is None:  # it left before any step saw it
            self._unseen.pop(request.id, None)
            return
        for cause, total_s in self._totals_s.items():
            if total_s != joined[cause]:
                _add(request, cause, total_s - joined[cause])


def _add(request: Request, cause: str, seconds: float) -> None:
    request.waits_s[cause] = request.waits_s.get(cause, 0.0) + seconds
