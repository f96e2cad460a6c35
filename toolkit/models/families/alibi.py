"""Slopes of attention with linear biases. Press et al. 2021, arXiv:2108.12409."""

from __future__ import annotations

import math

__all__ = ["alibi_slopes"]


def alibi_slopes(num_heads: int, bias_max: float = 8.0) -> tuple[float, ...]:
    """Return the slope of each head: 2^(-bias_max * k / n) for k = 1..n, n the next power of two.

    When num_heads is no power of two, every second slope comes first, then the others.
    """
    count = 2 ** math.ceil(math.log2(num_heads))
    slopes = tuple(2.0 ** (-bias_max * k / count) for k in range(1, count + 1))
    return slopes if count == num_heads else (slopes[1::2] + slopes[::2])[:num_heads]
