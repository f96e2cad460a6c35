"""Collect the log-probabilities of a prompt, each token's once, whoever computes it."""

from __future__ import annotations

from toolkit.engine.plan import PromptScores
from toolkit.request import Request

__all__ = ["append_prompt_scores"]


def append_prompt_scores(request: Request, scores: PromptScores) -> None:
    """Add what is new in ``scores`` to the list that the request shares with its samples.

    After a preemption a part of the prompt is computed again, by this sample or by another one;
    what is known already stays as it is.
    """
    known = request.prompt_logprobs
    if known is not None and scores.start <= len(known):
        known.extend(scores.entries[len(known) - scores.start :])
