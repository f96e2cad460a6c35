"""Outputs of any spread, and what the longest of a batch comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from toolkit.experiments.workloads.randomness import Array

__all__ = ["GammaOutputs", "closed_form", "harmonic"]

_NUM_PROMPT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class GammaOutputs:
    """Prompts of one length, outputs of a gamma distribution, rounded up to whole tokens.

    A coefficient of variation (standard deviation / mean) of 0 is one length, of 1 the exponential
    distribution.
    """

    mean: float
    cv: float

    def draw(self, prompt_unit: Array, output_unit: Array) -> tuple[Array, Array]:
        """Return the tokens of each prompt and of each output, from uniform numbers."""
        output = self.quantile(output_unit)
        return np.full(len(prompt_unit), _NUM_PROMPT_TOKENS), output

    def quantile(self, unit: Array) -> Array:
        """Return the length that a share of the outputs does not exceed, by share."""
        if not self.cv:
            return np.full(len(unit), math.ceil(self.mean))
        shape = 1 / self.cv**2
        exact = stats.gamma.ppf(unit, shape, scale=self.mean / shape)
        return np.maximum(np.ceil(exact), 1).astype(np.int64)

    def at_most(self, lengths: Array) -> Array:
        """Return the share of outputs that are no longer than each length."""
        if not self.cv:
            return (lengths >= math.ceil(self.mean)).astype(float)
        shape = 1 / self.cv**2
        found: Array = stats.gamma.cdf(lengths, shape, scale=self.mean / shape)
        return found


def harmonic(num: int) -> float:
    """Return H_n = 1 + 1/2 + ... + 1/n.

    >>> round(harmonic(32), 2)
    4.06
    """
    return sum(1 / each for each in range(1, num + 1))


def closed_form(lengths: GammaOutputs, batch_size: int) -> float:
    """Return E[longest of n] / E[length]: sums over the distribution of what is longer.

    >>> closed_form(GammaOutputs(100.0, 0.0), 8)
    1.0
    >>> abs(closed_form(GammaOutputs(1000.0, 1.0), 8) / harmonic(8) - 1) < 1e-3
    True
    """
    longest = int(lengths.quantile(np.array([1 - 1e-12]))[0])
    at_most = lengths.at_most(np.arange(longest))
    return float((1 - at_most**batch_size).sum() / (1 - at_most).sum())
