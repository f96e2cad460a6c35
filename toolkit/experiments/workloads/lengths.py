"""How long prompts and outputs are: length distributions, each a small frozen object with ``draw``.

Any object will do that has ``draw(prompt_unit, output_unit) -> (prompt, output)``: two arrays of
uniform numbers, one per request, become two of token counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.randomness import Array

__all__ = ["CutLogNormal", "Fixed", "Lengths", "LogNormal", "Uniform"]


class Lengths(Protocol):
    """A distribution of prompt and output lengths."""

    def draw(self, prompt_unit: Array, output_unit: Array) -> tuple[Array, Array]:
        """Return the tokens of each prompt and of each output, at least 1."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same lengths for all."""

    num_prompt_tokens: int
    num_output_tokens: int

    def __post_init__(self) -> None:
        if min(self.num_prompt_tokens, self.num_output_tokens) < 1:
            raise InvalidConfig(f"{self}: a request has at least one token in and one out")

    def draw(self, prompt_unit: Array, output_unit: Array) -> tuple[Array, Array]:
        """See `Lengths`."""
        num = len(prompt_unit)
        return np.full(num, self.num_prompt_tokens), np.full(num, self.num_output_tokens)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Lengths from a range each, both ends included, independent of each other.

    >>> Uniform((100, 1024), (100, 1024))     # nano-vllm's benchmark
    Uniform(prompt=(100, 1024), output=(100, 1024))
    """

    prompt: tuple[int, int]
    output: tuple[int, int]

    def __post_init__(self) -> None:
        for low, high in (self.prompt, self.output):
            if not 1 <= low <= high:
                raise InvalidConfig(f"{low} to {high} tokens is no range: 1 <= low <= high")

    def draw(self, prompt_unit: Array, output_unit: Array) -> tuple[Array, Array]:
        """See `Lengths`."""
        return _from_range(self.prompt, prompt_unit), _from_range(self.output, output_unit)


@dataclass(frozen=True, slots=True)
class CutLogNormal:
    """Whole numbers from 1 to ``longest``: N = ceil(X), X lognormal given that X <= longest.

    What is longer does not occur, as in a data set whose long entries were dropped. ``mu`` and
    ``sigma`` are those of ln X before the cut; `with_mean` and `with_median` find them for a
    distribution that has the asked moments *after* cut and rounding.

    >>> lengths = CutLogNormal.with_mean(338, sigma=1.0, longest=1024)
    >>> round(lengths.mean, 6), round(lengths.mu, 2)
    (338.0, 5.76)
    """

    mu: float
    sigma: float
    longest: int

    @classmethod
    def with_mean(cls, mean: float, *, sigma: float, longest: int) -> CutLogNormal:
        """Return the one of that mean; ``mu`` is solved for numerically."""
        if not (1 < mean < longest and sigma > 0):
            raise InvalidConfig(
                f"no lognormal has a mean of {mean} tokens with sigma={sigma}, cut at {longest}: "
                "1 < mean < longest and sigma > 0"
            )
        return cls(_mu_for_mean(mean, sigma, longest), sigma, longest)

    @classmethod
    def with_median(
        cls, median: float, *, longest: int, p90: float | None = None, sigma: float | None = None
    ) -> CutLogNormal:
        """Return the one of that median, and of that 90th percentile or that ``sigma``."""
        if (p90 is None) == (sigma is None) or not 1 < median < longest:
            raise InvalidConfig(
                "a median between 1 and longest wants one more number, either p90= or sigma="
            )
        if sigma is None:
            assert p90 is not None
            sigma = _sigma_for_p90(median, p90, longest)
        return cls(_mu_for_median(median, sigma, longest), sigma, longest)

    @property
    def mean(self) -> float:
        """The mean, cut and rounding included."""
        return _mean(self.mu, self.sigma, self.longest)

    def quantile(self, unit: Array) -> Array:
        """Return the lengths below which these shares of all lengths lie, int64."""
        from scipy.special import log_ndtr, ndtri_exp  # half a second that others need not wait

        below = log_ndtr((np.log(self.longest) - self.mu) / self.sigma)
        drawn = np.exp(self.mu + self.sigma * ndtri_exp(np.log(unit) + below))
        return np.clip(np.ceil(drawn), 1, self.longest).astype(np.int64)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths as most texts have them: lognormal, with the means that are asked for.

    ``sigma`` is the standard deviation of the logarithms, ``longest`` where they are cut; a pair is
    (prompt, output). The means are those after the cut.
    """

    prompt_mean: float
    output_mean: float
    sigma: float | tuple[float, float] = 1.0
    longest: int | tuple[int, int] = 1024

    def __post_init__(self) -> None:
        self._parts()  # refuses what has no solution

    def draw(self, prompt_unit: Array, output_unit: Array) -> tuple[Array, Array]:
        """See `Lengths`."""
        prompt, output = self._parts()
        return prompt.quantile(prompt_unit), output.quantile(output_unit)

    def _parts(self) -> tuple[CutLogNormal, CutLogNormal]:
        sigmas = self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)
        limits = self.longest if isinstance(self.longest, tuple) else (self.longest, self.longest)
        return (
            CutLogNormal.with_mean(self.prompt_mean, sigma=sigmas[0], longest=limits[0]),
            CutLogNormal.with_mean(self.output_mean, sigma=sigmas[1], longest=limits[1]),
        )


def _from_range(bounds: tuple[int, int], unit: Array) -> Array:
    low, high = bounds
    return low + ((high - low + 1) * unit).astype(np.int64)


def _mean(mu: float, sigma: float, longest: int) -> float:
    """Return the sum of P(N > k) over k from 0 to longest - 1."""
    from scipy.special import log_ndtr

    with np.errstate(divide="ignore"):  # ln 0 is -inf, whose probability is 0
        logs = (np.log(np.arange(longest)) - mu) / sigma
    return float(-np.expm1(log_ndtr(logs) - log_ndtr((np.log(longest) - mu) / sigma)).sum())


@lru_cache(maxsize=256)
def _mu_for_mean(mean: float, sigma: float, longest: int) -> float:
    from scipy.optimize import brentq

    # With mu far above the cut, X is about longest * U**(1 / a) with a = (mu - ln longest) /
    # sigma**2, whose mean is longest * a / (a + 1): so much suffices for any mean below longest.
    highest = np.log(longest) + sigma**2 * (3 / (1 - mean / longest) + 3)
    lowest = np.log(mean) - 40 * sigma - 40
    return float(brentq(lambda mu: _mean(mu, sigma, longest) - mean, lowest, highest, xtol=1e-10))


@lru_cache(maxsize=256)
def _mu_for_median(median: float, sigma: float, longest: int) -> float:
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    def excess(mu: float) -> float:
        share = log_ndtr((np.log(median) - mu) / sigma) - log_ndtr((np.log(longest) - mu) / sigma)
        return float(np.log(0.5) - share)

    # Far above the cut the share is (median / longest)**a, with a as above.
    highest = np.log(longest) + sigma**2 * (3 / np.log(longest / median) + 3)
    return float(brentq(excess, np.log(median) - 10 * sigma, highest, xtol=1e-10))


@lru_cache(maxsize=256)
def _sigma_for_p90(median: float, p90: float, longest: int) -> float:
    from scipy.optimize import brentq

    def excess(sigma: float) -> float:
        cut = CutLogNormal(_mu_for_median(median, sigma, longest), sigma, longest)
        return float(np.log(_exact_quantile(cut, 0.9) / p90))

    try:
        return float(brentq(excess, 1e-3, 20.0, xtol=1e-8))
    except ValueError:
        raise InvalidConfig(
            f"no lognormal cut at {longest} has the median {median} and the 90th percentile {p90}"
        ) from None


def _exact_quantile(cut: CutLogNormal, share: float) -> float:
    """Return a quantile of X, which is not rounded yet."""
    from scipy.special import log_ndtr, ndtri_exp

    below = log_ndtr((np.log(cut.longest) - cut.mu) / cut.sigma)
    return float(np.exp(cut.mu + cut.sigma * ndtri_exp(np.log(share) + below)))
