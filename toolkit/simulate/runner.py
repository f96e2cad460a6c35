"""SimulatedRunner: a cost model in place of a model, a virtual clock in place of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.clock import VirtualClock
from toolkit.engine.plan import SampledToken, StepPlan, StepResult, StepTimes
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

    Requests end by ``max_tokens``. Each samples a token of its own, over and over, unless
    ``foresee`` says what.

    Args:
        cost_model: Seconds of a step's work.
        clock: Moved on by as much.
    """

    def __init__(self, cost_model: CostModel, clock: VirtualClock) -> None:
        self.cost_model = cost_model
        self.clock = clock
        self._tokens: dict[str, tuple[SampledToken, ...]] = {}  # what each request samples
        # Of those whose output is known: the prompt's length, and the output.
        self._foreseen: dict[str, tuple[int, Sequence[int]]] = {}

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

    def foresee(self, request: Request, token_ids: Sequence[int]) -> None:
        """Let a request sample these tokens, in this order, as many as it will ask for."""
        self._foreseen[request.id] = request.num_prompt_tokens, token_ids

    def run(self, plan: StepPlan) -> StepResult:
        """Let the step's time pass; raise InvalidConfig where the cost model has no sense."""
        duration_s = self.cost_model(work_of(plan))
        if not duration_s >= 0:
            raise InvalidConfig(
                f"step {plan.step} takes {duration_s!r} s by {origin_of(self.cost_model)}"
            )
        self.clock.advance(duration_s)
        own = self._tokens
        tokens = {chunk[0]: own[chunk[0]] for chunk in plan.chunks if chunk[6]}
        if self._foreseen:
            tokens |= self._foreseen_in(plan)
        return StepResult(tokens=tokens, times=StepTimes(forward_s=duration_s))

    def _foreseen_in(self, plan: StepPlan) -> dict[str, tuple[SampledToken, ...]]:
        found: dict[str, tuple[SampledToken, ...]] = {}
        for chunk in plan.chunks:
            if chunk.samples and chunk.request_id in self._foreseen:
                num_prompt, token_ids = self._foreseen[chunk.request_id]
                found[chunk.request_id] = (SampledToken(token_ids[chunk.end - num_prompt]),)
        return found

    def release(self, request_id: str) -> None:
        """Forget what a request samples."""
        self._tokens.pop(request_id, None)
        self._foreseen.pop(request_id, None)

    def restore(self, restoration: Any) -> None:
        """Go back with the engine; only who is unfinished is remembered."""
        self._tokens.clear()
        for request in restoration.unfinished:
            self.prepare(request)

    def close(self) -> None:
        """Forget everybody."""
        self._tokens.clear()
        self._foreseen.clear()
