"""What a run's times say, by vLLM's definitions.

TTFT is from the time at which the request was due to its first token, so waiting in a queue counts,
the client's own included. TPOT is (E2EL - TTFT) / (output tokens - 1), for requests with more than
one token. ITL is the gap between two arrivals, over all gaps of all requests. Throughput is what
was completed, divided by the time from the first request due to the last token.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["RequestTimes", "percentile", "request_metrics", "spread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimes:
    """When a request was due and when its output came, in seconds on one clock.

    >>> times = RequestTimes(due_s=1.0, arrivals_s=(1.5, 1.6, 1.8), num_prompt_tokens=4)
    >>> round(times.ttft_s, 3), round(times.tpot_s, 3), round(times.e2el_s, 3)
    (0.5, 0.15, 0.8)
    """

    due_s: float
    arrivals_s: tuple[float, ...]  # of each piece of output; at least one
    num_prompt_tokens: int
    num_tokens: int | None = None  # of output, where a piece may hold several

    @property
    def num_output_tokens(self) -> int:
        """Output tokens: as counted by the engine, else one for each arrival."""
        return len(self.arrivals_s) if self.num_tokens is None else self.num_tokens

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.arrivals_s[0] - self.due_s

    @property
    def e2el_s(self) -> float:
        """End-to-end latency: time to the last token."""
        return self.arrivals_s[-1] - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for an output of one token."""
        num_gaps = self.num_output_tokens - 1
        return (self.e2el_s - self.ttft_s) / num_gaps if num_gaps > 0 else None

    @property
    def itls_s(self) -> list[float]:
        """Gaps between arrivals: the inter-token latencies."""
        return [after - before for before, after in pairwise(self.arrivals_s)]


def request_metrics(requests: Sequence[RequestTimes]) -> dict[str, float]:
    """Return the metrics of completed requests, under vLLM's names; times in ms."""
    start_s = min(request.due_s for request in requests)
    duration_s = max(request.arrivals_s[-1] for request in requests) - start_s
    num_input = sum(request.num_prompt_tokens for request in requests)
    num_output = sum(request.num_output_tokens for request in requests)
    metrics = {
        "duration": duration_s,
        "completed": len(requests),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(requests) / duration_s,
        "output_throughput": num_output / duration_s,
        "total_token_throughput": (num_input + num_output) / duration_s,
    }
    samples = {
        "ttft": [request.ttft_s for request in requests],
        "tpot": [request.tpot_s for request in requests if request.tpot_s is not None],
        "itl": [gap_s for request in requests for gap_s in request.itls_s],
        "e2el": [request.e2el_s for request in requests],
    }
    for name, values in samples.items():
        if values:
            metrics[f"mean_{name}_ms"] = 1e3 * statistics.fmean(values)
            metrics[f"median_{name}_ms"] = 1e3 * statistics.median(values)
            metrics[f"p99_{name}_ms"] = 1e3 * percentile(values, 99)
    return metrics


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, interpolated linearly between the two nearest values.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum of a metric over the repeats of a run.

    >>> spread([2.0, 1.0, 4.0])
    {'median': 2.0, 'min': 1.0, 'max': 4.0, 'runs': 3}
    """
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "runs": len(values),
    }
