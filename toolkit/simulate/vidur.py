"""Vidur's files: a trace that it can run, and the table of requests that it writes.

Names and meanings are those of microsoft/vidur (MLSys 2024): ``arrived_at, num_prefill_tokens,
num_decode_tokens`` of a trace, and the columns of ``request_metrics.csv`` (vidur/metrics/
constants.py). Its traces are read by ``Workload.from_trace(path, format="vidur")``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.record import Record
from toolkit.simulate.arrivals import Arrival

__all__ = ["vidur_metrics", "write_vidur_trace"]


def write_vidur_trace(arrivals: Iterable[Arrival], path: str | Path) -> Path:
    """Write a load as a trace for Vidur; return the path.

    Raises:
        InvalidConfig: an arrival waits for another one's end, which a trace cannot say.
    """
    rows = []
    for arrival in arrivals:
        if arrival.after >= 0:
            raise InvalidConfig(
                f"arrival {arrival.arrival_id} comes after the end of arrival {arrival.after}, and "
                "a trace of Vidur has times only: write one of a run (recorded_arrivals(record))"
            )
        rows.append((arrival.due_s, arrival.num_prompt_tokens, arrival.num_output_tokens))
    table = pd.DataFrame(rows, columns=["arrived_at", "num_prefill_tokens", "num_decode_tokens"])
    table.sort_values("arrived_at", kind="stable").to_csv(path, index=False)
    return Path(path)


def vidur_metrics(record: Record) -> pd.DataFrame:
    """Return the finished requests of a run, recorded or simulated, with Vidur's columns.

    Left out is what an engine here does not tell apart: the time of the model alone within a
    request's execution. ``.to_csv(path, index=False)`` writes the file.
    """
    table = record.requests
    table = table[table["status"] == "finished"].sort_values("arrival_s", kind="stable")
    num_prefill, num_decode = table["num_prompt_tokens"], table["num_output_tokens"]
    first_s, scheduled_s = table["first_token_s"], table["first_scheduled_s"]
    since_scheduled_s = table["finished_s"] - scheduled_s
    execution_s = since_scheduled_s - table["preempted_s"]
    return pd.DataFrame(
        {
            "Request Id": range(len(table)),
            "request_e2e_time": table["e2e_s"],
            "request_e2e_time_normalized": table["e2e_s"] / num_decode,
            "request_execution_time": execution_s,
            "request_execution_time_normalized": execution_s / num_decode,
            "request_preemption_time": table["preempted_s"],
            "request_scheduling_delay": scheduled_s - table["arrival_s"],
            "request_execution_plus_preemption_time": since_scheduled_s,
            "request_execution_plus_preemption_time_normalized": since_scheduled_s / num_decode,
            "prefill_e2e_time": first_s - table["arrival_s"],
            "prefill_time_execution_plus_preemption": first_s - scheduled_s,
            "prefill_time_execution_plus_preemption_normalized": (first_s - scheduled_s)
            / num_prefill,
            "decode_time_execution_plus_preemption_normalized": (table["finished_s"] - first_s)
            / num_decode,
            "request_inter_arrival_delay": table["arrival_s"].diff(),
            "request_num_tokens": num_prefill + num_decode,
            "request_num_prefill_tokens": num_prefill,
            "request_num_decode_tokens": num_decode,
            "request_pd_ratio": num_prefill / num_decode,
            "request_num_restarts": table["num_preemptions"],
        }
    ).reset_index(drop=True)
