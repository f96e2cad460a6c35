"""Choose rows of all tables: a stretch of time, or some requests, or what came before a step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from toolkit.errors import RecordError
from toolkit.record.holdings import CACHED_STILL, NEVER
from toolkit.record.log import Rows, select

__all__ = ["before_step", "between", "matching", "of_requests"]

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


def before_step(tables: Tables, step: int, live: Collection[str] = ()) -> Tables:
    """Drop steps from ``step`` on, and what happened in or after them.

    A request stays if it had ended before; of one that ended later, the row says what became of
    it, so it goes, and so do those in ``live``.
    """
    requests, blocks = tables["requests"], tables["blocks"]
    ended = (requests["ended_step"] != NEVER) & (requests["ended_step"] < step)
    ended &= np.array([name not in live for name in requests["request_id"]], bool)
    kept = select(blocks, blocks["start_step"] < step)
    reopened = kept["end_step"] >= step
    kept["end_step"] = np.where(reopened, NEVER, kept["end_step"])
    kept["end_s"] = np.where(reopened, np.nan, kept["end_s"])
    kept["end_why"] = np.where(reopened, None, kept["end_why"])
    until = kept["cached_until_step"]
    revived = ~reopened & (until >= step) & (until != CACHED_STILL)
    kept["cached_until_step"] = np.where(reopened, NEVER, np.where(revived, CACHED_STILL, until))
    kept["is_evicted"] = np.where(reopened | revived, 0, kept["is_evicted"])
    return {
        "steps": select(tables["steps"], tables["steps"]["step"] < step),
        "chunks": select(tables["chunks"], tables["chunks"]["step"] < step),
        "requests": select(requests, ended),
        "tokens": select(tables["tokens"], tables["tokens"]["step"] < step),
        "blocks": kept,
        "events": select(tables["events"], tables["events"]["step"] < step),
    }


def _within(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return (times_s >= start_s) & (times_s < end_s)
