"""BeamSearchParams: how one prompt is searched for its most likely continuations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.errors import InvalidParameter
from toolkit.sampling_params import MAX_LOGPROBS, SamplingParams

__all__ = ["BeamSearchParams"]

# A length to this power still fits a float with room to spare; nobody needs more than 2.
_MAX_LENGTH_PENALTY = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearchParams:
    """How wide a beam search is, how it scores and when it ends (transformers' names and meaning).

    >>> BeamSearchParams(beam_width=8).candidate_params(frozenset({2})).logprobs
    9

    The search looks at the model's own probabilities: temperature, penalties and cut-offs have no
    place in it.

    Args:
        beam_width: Sequences that are kept at every length, and returned. Together with the number
            of tokens that end a sequence it is at most 20, the most candidates a row reports.
        max_tokens: Output tokens at most; None is the rest of the context.
        length_penalty: A finished sequence scores its log-probability divided by its number of
            output tokens to this power: above 0 favours long ones, below 0 short ones.
        early_stopping: True ends the search once ``beam_width`` sequences are finished; False also
            waits until no running beam of the present length could still score better; "never"
            until none of any length could.
        ignore_eos: Goes on after an end-of-sequence token.
        stop_token_ids: Tokens that end a sequence, beside the model's own end-of-sequence ones.

    Raises:
        InvalidParameter: a value is out of range; ``.param`` names it.
    """

    beam_width: int = 4
    max_tokens: int | None = 16
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        width = self.beam_width
        if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= MAX_LOGPROBS:
            raise InvalidParameter(
                f"beam_width must be an integer from 1 to {MAX_LOGPROBS}, not {width!r}",
                param="beam_width",
            )
        penalty = self.length_penalty
        is_number = isinstance(penalty, (int, float)) and not isinstance(penalty, bool)
        # A NaN is not within the bounds either.
        if not is_number or not abs(penalty) <= _MAX_LENGTH_PENALTY:
            raise InvalidParameter(
                f"length_penalty must be a number from {-_MAX_LENGTH_PENALTY} to "
                f"{_MAX_LENGTH_PENALTY}, not {penalty!r}",
                param="length_penalty",
            )
        if not isinstance(self.early_stopping, bool) and str(self.early_stopping) != "never":
            raise InvalidParameter(
                f'early_stopping must be True, False or "never", not {self.early_stopping!r}',
                param="early_stopping",
            )
        # SamplingParams has the same fields, with the same bounds.
        checked = SamplingParams(
            max_tokens=self.max_tokens,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
        )
        object.__setattr__(self, "stop_token_ids", checked.stop_token_ids)

    def stopping(self, eos_token_ids: Collection[int]) -> frozenset[int]:
        """Return the tokens that end a sequence, given the model's own."""
        own = frozenset() if self.ignore_eos else frozenset(eos_token_ids)
        return own.union(self.stop_token_ids)

    def candidate_params(self, eos_token_ids: Collection[int]) -> SamplingParams:
        """Return the parameters under which a beam reports the tokens that may follow it.

        These are ``beam_width`` plus the number of stopping tokens: enough for ``beam_width`` that
        do not stop, and for the best ``beam_width`` whether they stop or not. The search needs no
        more, since it keeps as many of either kind over all beams.

        Raises:
            InvalidParameter: these are more candidates than a row can report.
        """
        num_stopping = len(self.stopping(eos_token_ids))
        num_candidates = self.beam_width + num_stopping
        if num_candidates > MAX_LOGPROBS:
            raise InvalidParameter(
                f"beam_width={self.beam_width} with {num_stopping} tokens that end a sequence "
                f"needs {num_candidates} candidates of each beam, and {MAX_LOGPROBS} are the most; "
                f"lower beam_width to {max(1, MAX_LOGPROBS - num_stopping)} or less",
                param="beam_width",
            )
        return SamplingParams(
            temperature=0,
            max_tokens=self.max_tokens,
            ignore_eos=self.ignore_eos,
            stop_token_ids=self.stop_token_ids,
            logprobs=num_candidates,
        )
