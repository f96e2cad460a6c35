"""Runs made by hand, for tests of what reads runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from toolkit.experiments.runs.results import Run


def made_run(
    ttft_s: Any,
    *,
    every_s: float = 1.0,
    num_output_tokens: int = 10,
    tpot_s: float = 0.1,
    fingerprint: str = "one",
    policy: str = "fcfs",
    tags: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Return a run in which request i is scheduled at i * every_s and has the given TTFT."""
    first = np.asarray(ttft_s, "float64")
    num = len(first)
    scheduled_s = np.arange(num) * every_s
    e2e_s = first + tpot_s * (num_output_tokens - 1)
    requests = pd.DataFrame(
        {
            "arrival_id": np.arange(num),
            "request_id": [f"req-{i}" for i in range(num)],
            "status": "finished",
            "error": None,
            "scheduled_s": scheduled_s,
            "sent_s": scheduled_s,
            "first_token_s": scheduled_s + first,
            "last_token_s": scheduled_s + e2e_s,
            "finished_s": scheduled_s + e2e_s,
            "num_prompt_tokens": 20,
            "num_cached_tokens": 0,
            "num_output_tokens": num_output_tokens,
            "ttft_s": first,
            "tpot_s": tpot_s,
            "e2e_s": e2e_s,
            "itl_p50_s": tpot_s,
            "itl_p99_s": tpot_s,
            "itl_max_s": tpot_s,
            "norm_latency_s": e2e_s / num_output_tokens,
            **{f"tags.{name}": values for name, values in (tags or {}).items()},
        }
    )
    tokens = pd.DataFrame({"arrival_id": [], "index": [], "time_s": []})
    return Run(
        requests,
        tokens,
        workload_description={"repr": "made", "fingerprint": fingerprint, "seed": 0},
        settings={"on": "nothing", "policy": policy, **settings},
    )
