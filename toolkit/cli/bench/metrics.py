"""What a run says under the names that vLLM's benchmark prints, and the spread over its repeats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.experiments import Run

__all__ = ["request_metrics", "spread"]


def request_metrics(run: Run) -> dict[str, float]:
    """Return the metrics of completed requests, by vLLM's definitions and names; times in ms."""
    table = run.summary()
    done = run.requests[run.requests["status"] == "finished"]
    throughput = {
        "request_throughput": "requests_per_s",
        "output_throughput": "output_tokens_per_s",
        "total_token_throughput": "total_tokens_per_s",
    }
    metrics = {
        "duration": len(done) / float(table.at["requests_per_s", "mean"]),
        "completed": len(done),
        "total_input_tokens": int(done["num_prompt_tokens"].sum()),
        "total_output_tokens": int(done["num_output_tokens"].sum()),
        **{name: float(table.at[row, "mean"]) for name, row in throughput.items()},
    }
    latencies = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
    for name, row in latencies.items():
        if table.at[row, "num"]:
            metrics[f"mean_{name}_ms"] = 1e3 * float(table.at[row, "mean"])
            metrics[f"median_{name}_ms"] = 1e3 * float(table.at[row, "p50"])
            metrics[f"p99_{name}_ms"] = 1e3 * float(table.at[row, "p99"])
    metrics["failed"] = int((run.requests["status"] == "failed").sum())
    metrics["cached_tokens"] = int(done["num_cached_tokens"].sum())
    if run.saturation is not None and math.isfinite(run.saturation.send_lag_max_s):
        metrics["max_send_lag_ms"] = 1e3 * run.saturation.send_lag_max_s
    return metrics


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
