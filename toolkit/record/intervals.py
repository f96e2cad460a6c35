"""Intervals of 95 % for means, percentiles and shares; seeded, so that they come out alike."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from typing import Any

import numpy as np

__all__ = [
    "NUM_BLOCKS",
    "grouped_mean_interval",
    "grouped_percentile_intervals",
    "mean_interval",
    "num_blocks_for",
    "paired_intervals",
    "percentile_interval",
    "share_interval",
]

Values = np.ndarray[Any, Any]

# Blocks of time, of which whole ones are drawn because requests near in time share a queue. Twenty
# are enough for an interval and long enough to be nearly independent (Schmeiser, Operations
# Research 30:3, 1982, has 10 to 30).
NUM_BLOCKS = 20
_LEAST_IN_BLOCK = 5  # requests; with fewer the blocks are longer
_TAIL = 0.025  # on either side
_Z = 1.959964  # of the normal distribution at that tail
_NUM_DRAWS = 1_000
# Each draw of a pooled percentile reads every value: a fifth keeps 200,000 values below a second.
_NUM_POOLED_DRAWS = 200
# Numbers of one block of draws: 8 MB.
_BLOCK = 1_000_000


def num_blocks_for(num_requests: int, most: int = NUM_BLOCKS) -> int:
    """Return into how many blocks of time requests are divided: at most so many, at least 1.

    >>> num_blocks_for(1000), num_blocks_for(24), num_blocks_for(3)
    (20, 4, 1)
    """
    return max(1, min(most, num_requests // _LEAST_IN_BLOCK))


def mean_interval(values: Values) -> tuple[float, float]:
    """Return the bootstrap interval of a mean; NaN for a single value."""
    return grouped_mean_interval(values, np.arange(len(values)))


def grouped_mean_interval(values: Values, owners: Values) -> tuple[float, float]:
    """Return the interval of the mean of all values, by drawing owners with all their values.

    Args:
        values: The values, in any order.
        owners: Of each value, numbered from 0.
    """
    counts = np.bincount(owners)
    sums = np.bincount(owners, weights=values)
    if len(counts) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(0)
    means = []
    num_at_once = max(1, _BLOCK // len(counts))
    for start in range(0, _NUM_DRAWS, num_at_once):
        num_draws = min(num_at_once, _NUM_DRAWS - start)
        drawn = generator.integers(0, len(counts), (num_draws, len(counts)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), (_TAIL, 1 - _TAIL))
    return float(low), float(high)


def percentile_interval(ordered: Values, percent: float) -> tuple[float, float]:
    """Return the interval of a percentile from order statistics, free of any distribution.

    The number of values below the true percentile is binomial. A bound for which there are too few
    values is NaN: 99 requests say nothing of how large the 99th percentile can be.

    >>> percentile_interval(np.arange(100.0), 50)
    (39.0, 60.0)
    """
    num, share = len(ordered), percent / 100
    ranks = np.arange(num + 1)
    at_most = np.cumsum(_binomial(num, share))  # P(at most r values are below)
    low = int(np.searchsorted(at_most, _TAIL, side="right")) - 1  # largest r with P <= tail
    high = int(ranks[np.searchsorted(at_most, 1 - _TAIL)])  # smallest r with P >= 1 - tail
    return (
        float(ordered[low]) if low >= 0 else float("nan"),
        float(ordered[high]) if high < num else float("nan"),
    )


def grouped_percentile_intervals(
    values: Values, owners: Values, percents: Sequence[float]
) -> list[tuple[float, float]]:
    """Return the interval of each percentile of all values, by drawing owners."""
    num_owners = int(owners.max()) + 1
    if num_owners < 2:
        return [(float("nan"), float("nan"))] * len(percents)
    order = np.argsort(values)
    ordered, owners = values[order], owners[order]
    generator = np.random.default_rng(0)
    found = np.empty((_NUM_POOLED_DRAWS, len(percents)))
    for draw in found:
        weights = np.bincount(generator.integers(0, num_owners, num_owners), minlength=num_owners)
        below = np.cumsum(weights[owners])
        places = np.searchsorted(below, below[-1] * np.asarray(percents) / 100)
        draw[:] = ordered[places]
    bounds = np.quantile(found, (_TAIL, 1 - _TAIL), axis=0)
    return [(float(low), float(high)) for low, high in bounds.T]


def paired_intervals(
    before: Values, after: Values, owners: Values, percents: Sequence[float]
) -> list[tuple[float, float]]:
    """Return the intervals of after - before of the mean, then of each percentile.

    Args:
        before: One value of each pair.
        after: The other, in the same order.
        owners: What is drawn with all its pairs, numbered from 0: clients, or blocks of time.
        percents: Which percentiles.
    """
    num_owners = int(owners.max()) + 1
    if num_owners < 2:
        return [(float("nan"), float("nan"))] * (1 + len(percents))
    shares = np.asarray(percents) / 100
    sides = [
        (values[order], owners[order])
        for values in (before, after)
        for order in (np.argsort(values),)
    ]
    generator = np.random.default_rng(0)
    found = np.empty((_NUM_DRAWS, 1 + len(percents)))
    for draw in found:
        weights = np.bincount(generator.integers(0, num_owners, num_owners), minlength=num_owners)
        of_side = []
        for ordered, owner in sides:
            weight = weights[owner]
            below = np.cumsum(weight)
            places = np.searchsorted(below, below[-1] * shares)
            of_side.append((ordered @ weight / below[-1], *ordered[places]))
        draw[:] = np.subtract(of_side[1], of_side[0])
    bounds = np.quantile(found, (_TAIL, 1 - _TAIL), axis=0)
    return [(float(low), float(high)) for low, high in bounds.T]


def share_interval(num_good: int, num: int) -> tuple[float, float]:
    """Return Wilson's interval of a share.

    >>> low, high = share_interval(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    share = num_good / num
    middle = (share + _Z**2 / (2 * num)) / (1 + _Z**2 / num)
    half = _Z * sqrt(share * (1 - share) / num + _Z**2 / (4 * num**2)) / (1 + _Z**2 / num)
    return max(0.0, middle - half), min(1.0, middle + half)


def _binomial(num: int, share: float) -> Values:
    """Return the probabilities of 0..num successes."""
    if num < 1_000:
        return np.array(
            [comb(num, k) * share**k * (1 - share) ** (num - k) for k in range(num + 1)]
        )
    ranks = np.arange(1, num + 1)
    logs = np.cumsum(np.log((num - ranks + 1) / ranks) + np.log(share / (1 - share)))
    return np.exp(np.concatenate([[0.0], logs]) + num * np.log(1 - share))
