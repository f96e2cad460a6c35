"""Choose rows of all tables: a stretch of time, or some requests."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from toolkit.errors import InvalidParameter, RecordError
from toolkit.record.log import Rows, select
from toolkit.record.schema import TAGS, column_names

__all__ = ["between", "matching", "of_requests"]

Tables = dict[str, Rows]


def between(tables: Tables, start_s: float, end_s: float) -> Tables:
    """Keep what happened in [start_s, end_s): steps by their start, requests alive in it.

    Raises:
        InvalidParameter: a bound is no number of seconds.
    """
    for name, value in (("start_s", start_s), ("end_s", end_s)):
        if not isinstance(value, Real) or value != value:
            raise InvalidParameter(f"{name}={value!r} is no number of seconds", param=name)
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
    """Return a mask [requests]: those whose columns or tags have these values.

    A column comes before a tag of its name, which is chosen as ``tags.name``: whoever sends
    requests sets their tags, and must not change what a column's name means.

    Raises:
        RecordError: no column has the name, and no request such a tag.
        InvalidParameter: a value cannot be compared with those of the column.
    """
    keep: np.ndarray = np.ones(len(requests["request_id"]), bool)
    for name, value in wanted.items():
        values = _values(requests, name)
        plain = value.tolist() if hasattr(value, "tolist") else value
        several = isinstance(plain, (list, tuple, set, frozenset, range))
        try:
            keep &= np.array([v in plain if several else bool(v == plain) for v in values], bool)
        except (TypeError, ValueError) as error:
            raise InvalidParameter(
                f"where({name}=...): a {type(value).__name__} cannot be compared with the values "
                f"there ({error}); give one value, or a list of them",
                param=name,
            ) from error
    return keep


def _values(requests: Rows, name: str) -> list[Any]:
    """Return the values of a column, or of a tag, by request."""
    if name in column_names("requests") and name != TAGS:
        values: list[Any] = requests[name].tolist()
        return values
    tag = name.removeprefix("tags.")
    own = [tags or {} for tags in requests["tags"]]
    if not any(tag in tags for tags in own):
        raise RecordError(
            f"where({name}=...): the requests table has no such column, and no request such a "
            "tag; see record.schema()"
        )
    return [tags.get(tag) for tags in own]


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
