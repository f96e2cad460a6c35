"""Beams without a model: candidates whose probabilities are made up, so that searches branch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolkit.clock import VirtualClock
from toolkit.engine.plan import SampledToken, StepPlan, StepResult
from toolkit.request import Logprob, Request
from toolkit.simulate.cost import CostModel
from toolkit.simulate.runner import SimulatedRunner

__all__ = ["BeamRunner"]


class BeamRunner(SimulatedRunner):
    """A simulated runner that serves beam searches too; which beams survive is up to chance.

    The probabilities of what may follow a beam are drawn by breaking a stick: each candidate takes
    a share Beta(1, c) of what those before it left (the Griffiths-Engen-McCloskey distribution).
    With c = 1 their entropy is 1 nat on average, about that of a language model on plain text. So
    ancestries are a surrogate: no text decides which beam goes on.

    Args:
        cost_model: Seconds of a step's work.
        clock: Moved on by as much.
        concentration: c; the larger, the more alike the candidates.
        seed: Of the draws.
    """

    def __init__(
        self,
        cost_model: CostModel,
        clock: VirtualClock,
        *,
        concentration: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(cost_model, clock)
        self._concentration = concentration
        self._rng = np.random.default_rng(seed)
        self._num_candidates: dict[str, int] = {}  # by the id of a beam

    def prepare(self, request: Request) -> None:
        """Take beams, and what a simulated machine takes anyway."""
        if request.beam is None:
            super().prepare(request)
        else:
            self._tokens[request.id] = ()
            self._num_candidates[request.id] = request.params.logprobs or 0

    def run(self, plan: StepPlan) -> StepResult:
        """Let the step's time pass; return the candidates of every beam that asked for them."""
        result = super().run(plan)
        candidates = {
            chunk.request_id: (self._candidates(self._num_candidates[chunk.request_id]),)
            for chunk in plan.chunks
            if chunk.samples and chunk.request_id in self._num_candidates
        }
        return replace(result, tokens={**result.tokens, **candidates})

    def _candidates(self, count: int) -> SampledToken:
        """Return the most likely of ``count`` drawn tokens, with the log-probabilities of all."""
        shares = self._rng.beta(1.0, self._concentration, size=count)
        left = np.concatenate([[1.0], np.cumprod(1.0 - shares[:-1])])
        # A share that rounds to nothing is still a probability.
        logprobs = np.sort(np.log(np.maximum(shares * left, 1e-300)))[::-1]
        return SampledToken(0, dict(enumerate(map(Logprob, logprobs.tolist()))))

    def release(self, request_id: str) -> None:
        """Forget a beam, or whoever it was."""
        self._num_candidates.pop(request_id, None)
        super().release(request_id)
