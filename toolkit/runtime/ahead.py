"""Begin the next step before this one's tokens are known; use what of it is wanted then.

Request path 5/8, beside runtime.whole_steps; engine.foresight says why this is safe. Per step, in
the order in which the device gets it: what the plan asks for and is not in flight already, then
what is foreseen of the next step. Only then does the host wait, for this step's tokens alone; while
it takes them in and plans, the device has work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from toolkit.engine.plan import StepPlan, StepResult, StepTimes
from toolkit.request import Request
from toolkit.runtime.flight import Flight, Launcher
from toolkit.runtime.hooks import ActiveHooks
from toolkit.runtime.whole_steps import WholeSteps
from toolkit.sampling import Sampler

__all__ = ["StepsAhead"]

logger = logging.getLogger(__name__)


class StepsAhead:
    """The steps of one model of which parts are launched before they are planned.

    Args:
        launcher: Queues what nobody looks into.
        whole: Computes the rest.
        sampler: Knows whose tokens are explained.
        hooks: Knows whether activations are shown.
        requests: Everybody, by id; its owner adds and removes.
    """

    def __init__(
        self,
        launcher: Launcher,
        whole: WholeSteps,
        *,
        sampler: Sampler,
        hooks: ActiveHooks,
        requests: Mapping[str, Request],
    ) -> None:
        self._launcher = launcher
        self._whole = whole
        self._sampler = sampler
        self._hooks = hooks
        self._requests = requests
        self._flight: Flight | None = None
        self._has_warned = False
        self.num_begun = 0  # chunks that were launched before they were planned
        self.num_used = 0  # those of them that were planned then

    @property
    def is_flying(self) -> bool:
        """Whether something is in flight."""
        return self._flight is not None

    def forget(self) -> None:
        """Let nobody use what is in flight."""
        self._flight = None

    def run(self, plan: StepPlan, started: float) -> StepResult:
        """Compute a step, whose blocks are known to the rows already.

        Args:
            plan: The step.
            started: When, on ``time.perf_counter``.
        """
        flight, self._flight = self._flight, None
        # Asked once: whoever adds a hooked request or asks for explanations may be another thread.
        is_watched = self._is_watched(plan)
        covered: set[str] = set()
        if flight is not None and not is_watched:
            covered = flight.covered(plan, self._requests)
        self.num_used += len(covered)
        rest = _without(plan, covered)
        launched, result = None, StepResult(tokens={})
        if rest.chunks and (is_watched or not self._are_blind(rest)):
            result = self._whole.run(rest, started)
        else:  # all tokens that the step draws are on the device, where what is foreseen needs them
            if rest.chunks:
                launched = self._launcher.launch(rest, self._requests)
            if plan.foreseen:
                self._begin(plan)
        parts = [(flight, covered), (launched, [chunk.request_id for chunk in rest.chunks])]
        landing = [(part, names) for part, names in parts if part is not None and names]
        return _landed(plan, result, landing, started)

    def _begin(self, plan: StepPlan) -> None:
        """Launch what a plan foresees; where that fails, the step itself is none the worse."""
        try:
            self._flight = self._launcher.launch(_foreseen(plan), self._requests)
        except Exception:
            if not self._has_warned:
                message = "could not begin step %d early; steps go on without, and try again:"
                logger.warning(message, plan.step + 1, exc_info=True)
            self._has_warned = True
        else:
            self.num_begun += len(plan.foreseen)

    def _is_watched(self, plan: StepPlan) -> bool:
        """Whether anybody wants to look into the step, whoever computes what in it."""
        return self._hooks.is_active or self._sampler.explained.is_on(self._owners(plan))

    def _are_blind(self, plan: StepPlan) -> bool:
        """Whether the requests themselves let their tokens be drawn without a look."""
        requests = self._owners(plan)
        is_drawn_blind = all(request.samples_blind for request in requests)
        return is_drawn_blind and not self._whole.scores_prompts_of(requests)

    def _owners(self, plan: StepPlan) -> list[Request]:
        return [self._requests[chunk.request_id] for chunk in plan.chunks]


def _landed(
    plan: StepPlan,
    result: StepResult,
    landing: Iterable[tuple[Flight, Collection[str]]],
    started: float,
) -> StepResult:
    """Wait for a step's tokens.

    Args:
        plan: The step.
        result: Of what was computed and waited for already.
        landing: Flights, with the requests whose tokens are wanted of each.
        started: When the step began.
    """
    launched = time.perf_counter()
    tokens, errors, slow_path = dict(result.tokens), dict(result.errors), result.slow_path
    for flight, names in landing:
        own_tokens, own_errors = flight.land(names)
        tokens |= own_tokens
        errors |= own_errors
        if flight.missed_graph and slow_path == "none":
            slow_path = "graph_miss"
    waited_s = time.perf_counter() - launched
    times = result.times
    if times == StepTimes():
        times = StepTimes(prepare_s=launched - started)
    names = [chunk.request_id for chunk in plan.chunks]
    return replace(
        result,
        tokens={name: tokens[name] for name in names if name in tokens},
        errors=errors,
        times=replace(times, forward_s=times.forward_s + waited_s),
        slow_path=slow_path,
    )


def _without(plan: StepPlan, covered: Collection[str]) -> StepPlan:
    """Return a plan of the other requests' chunks."""
    if not covered:
        return plan
    chunks = tuple([chunk for chunk in plan.chunks if chunk.request_id not in covered])
    return replace(plan, chunks=chunks, num_tokens=sum(chunk.num_tokens for chunk in chunks))


def _foreseen(plan: StepPlan) -> StepPlan:
    """Return the plan of what is foreseen."""
    num_tokens = sum(chunk.num_tokens for chunk in plan.foreseen)
    return StepPlan(plan.step + 1, plan.foreseen, num_tokens=num_tokens)
