"""Score the tokens of prompts, as far as a step computes them.

Request path 5/8: from runtime.model_runner, to sampling.sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from toolkit.engine.plan import PromptScores, StepPlan
from toolkit.request import Logprob, Request
from toolkit.sampling import Sampler

__all__ = ["PromptScorer"]

# Logits of a prompt are made and scored a piece at a time: all at once they could take gigabytes.
_MAX_SCORED_LOGITS = 1 << 22  # 16 MiB, of which a handful exist at once
_MAX_SCORED_ROWS = 128  # each has its parameters listed anew


class PromptScorer:
    """The log-probabilities of prompt tokens, for requests that ask for them.

    Args:
        logits: Makes logits [rows, vocab] of hidden states [rows, width].
        sampler: Scores them.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], sampler: Sampler) -> None:
        self._logits = logits
        self._sampler = sampler

    def is_wanted(self, requests: Iterable[Request]) -> bool:
        """Whether one of these wants log-probabilities that its prompt still lacks."""
        for request in requests:
            known = request.prompt_logprobs
            if known is not None and len(known) < request.num_prompt_tokens:
                return True
        return False

    def score(
        self, plan: StepPlan, requests: Mapping[str, Request], hidden: Tensor
    ) -> dict[str, PromptScores]:
        """Return the log-probabilities that this step's prompt tokens give, where asked for.

        Args:
            plan: What was computed.
            requests: By id.
            hidden: [num_tokens, hidden], the plan's tokens in order.
        """
        scores = {}
        first_row = 0
        for chunk in plan.chunks:
            request = requests[chunk.request_id]
            known = request.prompt_logprobs
            if known is not None:
                # The row at position p scores the token at p + 1.
                start = max(chunk.start + 1, len(known))
                end = min(chunk.end + 1, request.num_prompt_tokens)
                if start < end:
                    offset = first_row - chunk.start - 1
                    wanted = hidden[start + offset : end + offset]
                    entries = self._score(request, start, wanted)
                    scores[request.id] = PromptScores(start, tuple(entries))
            first_row += chunk.num_tokens
        return scores

    def _score(self, request: Request, start: int, hidden: Tensor) -> list[dict[int, Logprob]]:
        """Score prompt tokens from ``start`` on by [rows, hidden], some rows at a time."""
        vocab_size = self._sampler.vocab_size
        num_rows = min(_MAX_SCORED_ROWS, max(1, _MAX_SCORED_LOGITS // vocab_size))
        entries: list[dict[int, Logprob]] = []
        for part in hidden.split(num_rows):
            logits = self._logits(part)
            entries += self._sampler.score_prompt(logits, request, start + len(entries))
        return entries
