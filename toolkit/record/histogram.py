"""Histograms that one thread fills and others read, and the bounds that vLLM's have.

prometheus_client's own histograms take a lock and search their bounds for each value; these take
a value with the number of times it occurred, because the tokens of one step share their time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

__all__ = [
    "BLOCK_LIFE_BOUNDS_S",
    "FIRST_TOKEN_BOUNDS_S",
    "GAP_BOUNDS_S",
    "HTTP_BOUNDS_S",
    "NUM_PREEMPTIONS_BOUNDS",
    "NUM_SAMPLES_BOUNDS",
    "REQUEST_BOUNDS_S",
    "STEP_TOKENS_BOUNDS",
    "TOKEN_BOUNDS_S",
    "Histogram",
    "token_count_bounds",
]


def _bounds(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


# vLLM's, value for value: a dashboard adds up series of several servers, which needs equal bounds.
FIRST_TOKEN_BOUNDS_S = _bounds(
    "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560"
)
TOKEN_BOUNDS_S = _bounds(
    "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80"
)
REQUEST_BOUNDS_S = _bounds(
    "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680"
)
BLOCK_LIFE_BOUNDS_S = _bounds(
    "0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10 20 30 60 120 300 600 1200 1800"
)
STEP_TOKENS_BOUNDS = _bounds("1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384")
NUM_SAMPLES_BOUNDS = _bounds("1 2 5 10 20")
NUM_PREEMPTIONS_BOUNDS = _bounds("1 2 3 4 5 10 20")
HTTP_BOUNDS_S = _bounds("0.1 0.5 1")
# Ours: an undisturbed gap takes some 10 microseconds, a turn of the interpreter lock 5 ms.
GAP_BOUNDS_S = _bounds("0.0001 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5")


def token_count_bounds(most: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, 20, 50, ... up to the largest number of tokens.

    >>> token_count_bounds(100)
    (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    """
    decades = range(len(str(most)))
    return tuple(float(d * 10**k) for k in decades for d in (1, 2, 5) if d * 10**k <= most)


class Histogram:
    """Counts of values by upper bound, and their sum; written by one thread.

    Readers copy the counts in one bytecode, so that buckets and count always agree; the sum may be
    one observation ahead.

    >>> histogram = Histogram((1.0, 2.0))
    >>> histogram.observe(1.0); histogram.observe(3.0, times=2)
    >>> histogram.cumulative(), histogram.sum
    ([('1.0', 1), ('2.0', 1), ('+Inf', 3)], 7.0)
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, *, times: int = 1) -> None:
        """Count a value that occurred so many times."""
        self.sum += value * times
        self._counts[bisect_left(self._bounds, value)] += times

    def cumulative(self) -> list[tuple[str, int]]:
        """Return how many values are at most each bound; the last one is all of them."""
        names = (*map(str, self._bounds), "+Inf")
        return list(zip(names, accumulate(self._counts.copy()), strict=True))
