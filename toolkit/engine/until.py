"""Where to stop: conditions for ``engine.run_until``, each a function of a step's report.

engine.run_until(until.first_token("req-3"))
engine.run_until(until.step(40))
engine.run_until(until.preempted("req-3"))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from toolkit.engine.report import StepReport
from toolkit.request import Request

__all__ = ["Condition", "evicted", "finished", "first_token", "preempted", "step"]

Condition: TypeAlias = Callable[[StepReport], bool]


def step(number: int) -> Condition:
    """Stop just before a step, which is the next one then."""
    return lambda report: report.step + 1 >= number


def first_token(request: str | Request) -> Condition:
    """Stop after the step that sampled a request's first token."""
    name = _name(request)
    return lambda report: any(
        update.request_id == name and update.first_index == 0 and bool(update.token_ids)
        for update in report.updates
    )


def finished(request: str | Request) -> Condition:
    """Stop after the step in which a request ended."""
    name = _name(request)
    return lambda report: any(
        update.request_id == name and update.finish_reason is not None for update in report.updates
    )


def preempted(request: str | Request | None = None) -> Condition:
    """Stop after the step that took a request's blocks; anybody's when None."""
    name = None if request is None else _name(request)
    return lambda report: (
        bool(report.plan.preempted_ids) if name is None else name in report.plan.preempted_ids
    )


def evicted(num_blocks: int = 1) -> Condition:
    """Stop after a step that evicted at least so many cached blocks."""
    return lambda report: report.num_evicted >= num_blocks


def _name(request: str | Request) -> str:
    return request.id if isinstance(request, Request) else request
