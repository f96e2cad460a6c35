"""The table of requests that Vidur writes, of a run here: for tools that read its results.

Names and meanings are those of ``request_metrics.csv`` (microsoft/vidur, MLSys 2024: vidur/metrics/
constants.py). Its traces are read by ``Workload.from_trace(path, format="vidur")`` and written by
``workload.to_csv(path, format="vidur")``.
"""

from __future__ import annotations

import pandas as pd

from toolkit.record import Record

__all__ = ["vidur_metrics"]


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
