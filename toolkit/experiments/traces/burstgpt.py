"""BurstGPT's traces: CSV with `Timestamp` (s), `Request tokens`, `Response tokens` and more.

From HPMLL/BurstGPT; cite Wang et al., arXiv 2401.17644. A call that failed has no response tokens;
it is left out. `Model`, `Log Type` and `Session ID`, where the file has them, become the tags
``model``, ``log_type`` and ``session``.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.experiments.traces.trace import Collected, Trace, opened, table_rows

__all__ = ["read_burstgpt"]

_TAGS = {"Model": "model", "Log Type": "log_type", "Session ID": "session"}


def read_burstgpt(path: Path, num_requests: int | None) -> Trace:
    """Read a trace; its prompts share nothing, for it says nothing about them."""
    collected = Collected(path, num_requests)
    needed = ("Timestamp", "Request tokens", "Response tokens")
    with opened(path) as file:
        for place, row in table_rows(path, file, needed=needed, known=tuple(_TAGS)):
            is_kept = collected.add(
                place.seconds(row["Timestamp"], "Timestamp"),
                place.whole(row["Request tokens"], "Request tokens"),
                place.whole(row["Response tokens"], "Response tokens"),
            )
            if is_kept:
                for column, tag in _TAGS.items():
                    if column in row:
                        collected.tags.setdefault(tag, []).append(row[column])
            if collected.is_full:
                break
    return collected.trace()
