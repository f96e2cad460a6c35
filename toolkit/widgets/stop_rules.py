"""When a run of steps is to stop: what EngineDebugger offers, as predicates of a step's report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.engine import StepReport
from toolkit.engine.report import RequestUpdate
from toolkit.errors import InvalidConfig

__all__ = ["STOP_RULES", "Stop", "StopRule", "stop_when"]

Stop = Callable[[StepReport], bool]


@dataclass(frozen=True, slots=True)
class StopRule:
    """One choice: its label, what it needs to know ("", "request" or "number"), what it does."""

    label: str
    needs: str
    make: Callable[[str], Stop]


def _always(stop: Stop) -> Callable[[str], Stop]:
    return lambda _: stop


def _has_ended(update: RequestUpdate) -> bool:
    return update.finish_reason is not None


def _first_token(request_id: str) -> Stop:
    def stop(report: StepReport) -> bool:
        return any(
            update.request_id == request_id and update.first_index == 0 and update.token_ids
            for update in report.updates
        )

    return stop


def _ends(request_id: str) -> Stop:
    def stop(report: StepReport) -> bool:
        return request_id in [u.request_id for u in report.updates if _has_ended(u)]

    return stop


def _at_step(number: str) -> Stop:
    # Steps are numbered from 0, and the engine then stands before the one that is named.
    return lambda report: report.step + 1 >= int(number)


STOP_RULES = {
    "first_token": StopRule("the first token of", "request", _first_token),
    "request_ends": StopRule("the end of", "request", _ends),
    "step": StopRule("before step", "number", _at_step),
    "admission": StopRule("an admission", "", _always(lambda r: bool(r.plan.admitted_ids))),
    "preemption": StopRule("a preemption", "", _always(lambda r: bool(r.plan.preempted_ids))),
    "eviction": StopRule("an eviction", "", _always(lambda r: r.num_evicted > 0)),
    "any_end": StopRule("any request ends", "", _always(lambda r: any(map(_has_ended, r.updates)))),
    "idle": StopRule("nothing is left to do", "", _always(lambda r: False)),
}


def stop_when(name: str, argument: object = "") -> Stop:
    """Return the predicate of a rule.

    Raises:
        InvalidConfig: there is no such rule, or its argument is missing or no number.
    """
    rule = STOP_RULES.get(name)
    if rule is None:
        raise InvalidConfig(f"until={name!r} is not one of {', '.join(STOP_RULES)}")
    text = str(getattr(argument, "id", argument)).strip()
    if rule.needs == "request" and not text:
        raise InvalidConfig(f"until={name!r} needs a request: which one?")
    if rule.needs == "number" and not text.isdecimal():
        raise InvalidConfig(f"until={name!r} needs the number of a step, not {argument!r}")
    return rule.make(text)
