"""Choose rows of all tables: a stretch of time, or some requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.errors import RecordError
from toolkit.record.log import Rows, select

__all__ = ["between", "matching", "of_requests"]

Tables = dict[str, Rows]


def between(tables: Tables, start_s: float, end_s: float) -> Tables:
    """Keep what happened in [start_s, end_s): steps by their start, requests alive in it."""
    steps = select(tables["steps"], _within(tables["steps"]["start_s"], start_s, end_s))
    requests, blocks = tables["requests"], tables["blocks"]
    lives = (requests["arrival_s"] < end_s) & ~(requests["finished_s"] < start_s)
    holds = (blocks["start_s"] < end_s) & ~(blocks["end_s"] < start_s)
    chunks, tokens, events = tables["chunks"], tables["tokens"], tables["events"]
    return {
        "steps": steps,
        "chunks": select(chunks, np.isin(chunks["step"], steps["step"])),
        "requests": select(requests, lives),
        "tokens": select(tokens, _within(tokens["sent_s"], start_s, end_s)),
        "blocks": select(blocks, holds),
        "events": select(events, _within(events["time_s"], start_s, end_s)),
    }


def matching(requests: Rows, wanted: Mapping[str, Any]) -> np.ndarray:
    """Return a mask [requests]: those whose tags or columns have these values.

    Raises:
        RecordError: no request has such a tag, and no column has the name.
    """
    keep: np.ndarray = np.ones(len(requests["request_id"]), bool)
    for name, value in wanted.items():
        own = requests["tags"]
        if any(tags and name in tags for tags in own):
            values = [(tags or {}).get(name) for tags in own]
        elif name in requests and name != "tags":
            values = requests[name].tolist()
        else:
            raise RecordError(
                f"where({name}=...): no request has such a tag, and the requests table no such "
                "column; see record.schema()"
            )
        several = isinstance(value, (list, tuple, set, frozenset))
        keep &= np.array([v in value if several else v == value for v in values], bool)
    return keep


def of_requests(tables: Tables, keep: np.ndarray) -> Tables:
    """Keep some requests (a mask) with all that is theirs; steps and the engine's events stay."""
    requests = select(tables["requests"], keep)
    names = set(requests["request_id"].tolist())

    def theirs(table: str, *, also_nobodys: bool = False) -> Rows:
        rows = tables[table]
        wanted = {*names, None} if also_nobodys else names
        return select(rows, np.array([name in wanted for name in rows["request_id"]], bool))

    return {
        "steps": tables["steps"],
        "chunks": theirs("chunks"),
        "requests": requests,
        "tokens": theirs("tokens"),
        "blocks": theirs("blocks"),
        "events": theirs("events", also_nobodys=True),
    }


def _within(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return (times_s >= start_s) & (times_s < end_s)
