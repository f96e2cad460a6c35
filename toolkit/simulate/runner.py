"""SimulatedRunner: a cost model in place of a model, a virtual clock in place of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.clock import VirtualClock
from toolkit.engine.plan import SampledToken, ScheduledChunk, StepPlan, StepResult, StepTimes
from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.request import Request
from toolkit.simulate.cost import CostModel, origin_of
from toolkit.simulate.work import work_of

__all__ = ["FIRST_MADE_UP", "SimulatedRunner"]

# Token ids from here on are in no vocabulary. What a request samples is its own, so that blocks of
# output are never taken for another's.
FIRST_MADE_UP = 1 << 40


class SimulatedRunner:
    """Runs plans by asking how long they take.

    Requests end by ``max_tokens``; what they sample means nothing.

    Args:
        cost_model: Seconds of a step's work.
        clock: Moved on by as much.
        token_of: Says what a chunk samples, where somebody will compare; by default each request
            samples a token of its own, over and over.
    """

    def __init__(
        self,
        cost_model: CostModel,
        clock: VirtualClock,
        *,
        token_of: Callable[[ScheduledChunk], int] | None = None,
    ) -> None:
        self.cost_model = cost_model
        self.clock = clock
        self._token_of = token_of
        self._tokens: dict[str, tuple[SampledToken, ...]] = {}  # what each request samples

    def prepare(self, request: Request) -> None:
        """Take a request that asks for tokens alone.

        Raises:
            InvalidRequest: it asks for what only a model knows.
        """
        params = request.params
        asks = params.logprobs is not None or params.prompt_logprobs is not None
        if request.pooling is not None or request.beam is not None or asks or request.hooks:
            raise InvalidRequest(
                "a simulated machine has no model: it makes neither embeddings, beams, "
                "log-probabilities nor activations"
            )
        self._tokens[request.id] = (SampledToken(FIRST_MADE_UP + request.arrival_index),)

    def run(self, plan: StepPlan) -> StepResult:
        """Let the step's time pass; raise InvalidConfig where the cost model has no sense."""
        duration_s = self.cost_model(work_of(plan))
        if not duration_s >= 0:
            raise InvalidConfig(
                f"step {plan.step} takes {duration_s!r} s by {origin_of(self.cost_model)}"
            )
        self.clock.advance(duration_s)
        if self._token_of is None:
            own = self._tokens
            tokens = {chunk[0]: own[chunk[0]] for chunk in plan.chunks if chunk[6]}
        else:
            tokens = {
                chunk[0]: (SampledToken(self._token_of(chunk)),)
                for chunk in plan.chunks
                if chunk[6]
            }
        return StepResult(tokens=tokens, times=StepTimes(forward_s=duration_s))

    def release(self, request_id: str) -> None:
        """Forget what a request samples."""
        self._tokens.pop(request_id, None)

    def restore(self, restoration: Any) -> None:
        """Go back with the engine; only who is unfinished is remembered."""
        self._tokens.clear()
        for request in restoration.unfinished:
            self.prepare(request)

    def close(self) -> None:
        """Forget everybody."""
        self._tokens.clear()
