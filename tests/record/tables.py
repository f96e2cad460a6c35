"""Small tables by hand, with the columns that the tests of what is made from them need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def requests_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Finished requests, with everything that a row does not say left at a plain value."""
    plain = {"status": "finished", "num_prompt_tokens": 10, "num_output_tokens": 1}
    return pd.DataFrame([{"request_id": f"req-{i}", **plain, **row} for i, row in enumerate(rows)])


def answers(
    arrivals_s: list[float], ttfts_s: list[float], gaps_s: list[list[float]], **columns: list[Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables requests and tokens of answers whose every gap is given."""
    rows, tokens = [], []
    for i, (arrival_s, ttft_s, gaps) in enumerate(zip(arrivals_s, ttfts_s, gaps_s, strict=True)):
        sent_s = np.cumsum([arrival_s + ttft_s, *gaps])
        e2e_s = float(sent_s[-1]) - arrival_s
        rows.append(
            {
                "request_id": f"req-{i}",
                "arrival_s": arrival_s,
                "ttft_s": ttft_s,
                "e2e_s": e2e_s,
                "tpot_s": (e2e_s - ttft_s) / len(gaps) if gaps else None,
                "itl_max_s": max(gaps, default=None),
                "num_output_tokens": len(sent_s),
                "first_token_s": float(sent_s[0]),
                "last_token_s": float(sent_s[-1]),
                "finished_s": float(sent_s[-1]),
                **{name: values[i] for name, values in columns.items()},
            }
        )
        tokens += [
            {"request_id": f"req-{i}", "sent_s": time_s, "itl_s": gap_s}
            for time_s, gap_s in zip(sent_s, [None, *gaps], strict=True)
        ]
    return requests_table(rows), pd.DataFrame(tokens)
