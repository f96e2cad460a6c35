"""Vidur's traces, in and out: CSV with `arrived_at` (s), `num_prefill_tokens`, `num_decode_tokens`.

From microsoft/vidur (MIT); cite Agrawal et al., arXiv 2405.05465. Its data sets of lengths have no
`arrived_at`: then all requests come at once.
"""

from __future__ import annotations

import csv
from pathlib import Path

from toolkit.errors import InvalidConfig
from toolkit.experiments.traces.trace import Collected, Trace, opened, table_rows
from toolkit.experiments.workloads.columns import Columns

__all__ = ["read_vidur", "write_vidur"]

_LENGTHS = ("num_prefill_tokens", "num_decode_tokens")


def read_vidur(path: Path, num_requests: int | None) -> Trace:
    """Read a trace; its prompts share nothing, for it says nothing about them."""
    collected = Collected(path, num_requests)
    with opened(path) as file:
        for place, row in table_rows(path, file, needed=_LENGTHS, known=("arrived_at",)):
            num_prompt, num_output = (place.whole(row[name], name) for name in _LENGTHS)
            time_s = place.seconds(row.get("arrived_at", 0), "arrived_at")
            collected.add(time_s, num_prompt, num_output)
            if collected.is_full:
                break
    return collected.trace()


def write_vidur(columns: Columns, path: Path) -> None:
    """Write a trace for Vidur.

    Raises:
        InvalidConfig: requests follow one another, which Vidur has no word for.
    """
    if int(columns.after.max()) >= 0:
        raise InvalidConfig("a Vidur trace has fixed times, and these requests follow one another")
    rows = zip(
        columns.due_s.tolist(),
        columns.num_prompt_tokens.tolist(),
        columns.num_output_tokens.tolist(),
        strict=True,
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("arrived_at", *_LENGTHS))
        writer.writerows(rows)
