"""Choose which beams go on: beam search over plain numbers, as transformers does it.

At each length every beam proposes the tokens that may follow it. The ``beam_width`` best
continuations that do not end make the next beams; those that end with a stopping token, or because
the output is full, become hypotheses if they are among the ``beam_width`` best of all, and the
``beam_width`` best hypotheses are kept. A hypothesis scores

    score = sum of log-probabilities / number of output tokens ** length_penalty

(Wu et al. 2016, section 7, in the simpler form that transformers uses). Nothing here knows
requests or blocks: `toolkit.engine.beam_groups` gives every beam its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from toolkit.beam_search_params import BeamSearchParams

__all__ = ["Beam", "BeamSearch", "Choice", "Hypothesis"]


class Beam(NamedTuple):
    """A sequence that still grows: its output tokens and the sum of their log-probabilities."""

    token_ids: tuple[int, ...]
    logprob: float


class Choice(NamedTuple):
    """A continuation that was kept: beam number ``parent`` of the last length, and a token."""

    parent: int
    token_id: int
    logprob: float


class Hypothesis(NamedTuple):
    """A sequence that has ended."""

    token_ids: tuple[int, ...]
    logprob: float
    score: float
    is_stopped: bool  # by a stopping token; else because the output is full


class BeamSearch:
    """The search below one prompt.

    >>> search = BeamSearch(BeamSearchParams(beam_width=2), max_tokens=2, stop_token_ids={0})
    >>> search.advance([{0: -0.5, 1: -1.0, 2: -2.0}])
    (Choice(parent=0, token_id=1, logprob=-1.0), Choice(parent=0, token_id=2, logprob=-2.0))
    >>> search.advance([{1: -0.1, 0: -3.0, 2: -4.0}, {2: -0.1, 1: -3.0, 0: -4.0}])
    ()
    >>> [hypothesis.token_ids for hypothesis in search.hypotheses]
    [(0,), (1, 1)]

    Args:
        params: Width, length penalty, when to stop.
        max_tokens: Output tokens at most.
        stop_token_ids: Tokens that end a sequence.
    """

    def __init__(
        self, params: BeamSearchParams, *, max_tokens: int, stop_token_ids: Collection[int]
    ) -> None:
        self._params = params
        self._max_tokens = max_tokens
        self._stop_token_ids = frozenset(stop_token_ids)
        self.beams: tuple[Beam, ...] = (Beam((), 0.0),)  # best first
        self.hypotheses: list[Hypothesis] = []  # best first
        self.is_done = False

    @property
    def num_candidates(self) -> int:
        """Most likely tokens that each beam has to propose."""
        return self._params.beam_width + len(self._stop_token_ids)

    def advance(self, candidates: Sequence[Mapping[int, float]]) -> tuple[Choice, ...]:
        """Go one token further and return the new beams, best first; none when the search is done.

        Args:
            candidates: For each beam the log-probabilities of its ``num_candidates`` most likely
                next tokens. Equal sums go by the rank of the beam, then by the order here.
        """
        width = self._params.beam_width
        length = len(self.beams[0].token_ids) + 1
        is_full = length == self._max_tokens
        ranked = sorted(
            (
                Choice(parent, token_id, beam.logprob + logprob)
                for parent, (beam, own) in enumerate(zip(self.beams, candidates, strict=True))
                for token_id, logprob in own.items()
            ),
            key=lambda choice: -choice.logprob,
        )
        for choice in ranked[:width]:
            if is_full or choice.token_id in self._stop_token_ids:
                self._keep_hypothesis(choice, length)
        going_on = tuple(c for c in ranked if c.token_id not in self._stop_token_ids)[:width]
        self.is_done = is_full or not self._can_improve(going_on[0].logprob, length)
        if self.is_done:
            return ()
        self.beams = tuple(Beam(self._sequence(choice), choice.logprob) for choice in going_on)
        return going_on

    def _sequence(self, choice: Choice) -> tuple[int, ...]:
        return (*self.beams[choice.parent].token_ids, choice.token_id)

    def _keep_hypothesis(self, choice: Choice, length: int) -> None:
        score = choice.logprob / length**self._params.length_penalty
        is_stopped = choice.token_id in self._stop_token_ids
        self.hypotheses.append(
            Hypothesis(self._sequence(choice), choice.logprob, score, is_stopped)
        )
        # Sorting is stable: of equal scores, the one that ended earlier stays ahead.
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        del self.hypotheses[self._params.beam_width :]

    def _can_improve(self, best_logprob: float, length: int) -> bool:
        """Whether the best running beam might still become one of the hypotheses that are kept.

        A guess, like transformers': log-probabilities only fall, but the division by the length
        may raise the score again. Only "never" looks at the longest length that is possible.
        """
        if len(self.hypotheses) < self._params.beam_width:
            return True
        if self._params.early_stopping is True:
            return False
        penalty = self._params.length_penalty
        looks_far = self._params.early_stopping == "never" and penalty > 0
        best_score: float = best_logprob / (self._max_tokens if looks_far else length) ** penalty
        return best_score > self.hypotheses[-1].score
