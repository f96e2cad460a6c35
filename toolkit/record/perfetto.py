"""Write a record as a Chrome trace, which ui.perfetto.dev and chrome://tracing open.

Each request is a track of its spans, the engine a track of its steps, with counters of the KV
cache in percent, of requests running and waiting, and of tokens per step below it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.files import ready_to_write
from toolkit.record.batch_mates import Tables
from toolkit.record.spans import SpanTables, make_spans

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["trace_events", "write_trace"]

_ENGINE, _REQUESTS = 1, 2  # the format groups tracks by process
_INSTANTS = ("preempted", "resumed", "policy_changed", "paused", "rejected")


def write_trace(record: SpanTables, path: str | Path) -> Path:
    """Write the trace and return its path; a name that ends with .gz is compressed."""
    path = ready_to_write(path)
    text = json.dumps({"traceEvents": trace_events(record), "displayTimeUnit": "ms"})
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")
    return path


def trace_events(record: SpanTables) -> list[dict[str, Any]]:
    """Return the events: metadata first, then by time, in microseconds."""
    tables = Tables(record.steps, record.chunks, record.requests, record.events)
    requests = tables.requests.sort_values("arrival_s", kind="stable", ignore_index=True)
    tracks = {name: number for number, name in enumerate(requests["request_id"], start=1)}
    events = [
        *_steps(tables.steps),
        *_spans(make_spans(tables), tracks),
        *_instants(tables.events, tracks),
    ]
    return [*_metadata(tracks), *sorted(events, key=lambda event: event["ts"])]


def _metadata(tracks: dict[str, int]) -> list[dict[str, Any]]:
    names = [
        ("process_name", _ENGINE, 0, "engine"),
        ("thread_name", _ENGINE, 1, "steps"),
        ("process_name", _REQUESTS, 0, "requests"),
        *[("thread_name", _REQUESTS, number, name) for name, number in tracks.items()],
    ]
    named = [
        {"ph": "M", "name": kind, "pid": process, "tid": track, "args": {"name": name}}
        for kind, process, track, name in names
    ]
    sorting = [
        {
            "ph": "M",
            "name": "thread_sort_index",
            "pid": _REQUESTS,
            "tid": number,
            "args": {"sort_index": number},
        }
        for number in tracks.values()
    ]
    return named + sorting


def _steps(steps: pd.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in steps.itertuples():
        span = _span(row.start_s, row.start_s + row.duration_s)
        args = {
            "requests": int(row.num_requests),
            "prompt tokens": int(row.num_prompt_tokens),
            "decode tokens": int(row.num_decode_tokens),
            "budget": int(row.token_budget),
            "limited by": str(row.limited_by),
        }
        found.append({"name": f"step {row.step}", "pid": _ENGINE, "tid": 1, **span, "args": args})
        num_blocks = row.blocks_used + row.blocks_free
        counters = {
            "KV cache (%)": {"used": round(100 * row.blocks_used / max(1, num_blocks), 3)},
            "requests": {"running": int(row.num_running), "waiting": int(row.num_waiting)},
            "tokens per step": {
                "prompt": int(row.num_prompt_tokens),
                "decode": int(row.num_decode_tokens),
            },
        }
        found += [
            {"ph": "C", "name": name, "pid": _ENGINE, "tid": 0, "ts": span["ts"], "args": values}
            for name, values in counters.items()
        ]
    return found


def _spans(spans: pd.DataFrame, tracks: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "name": f"wait: {span.cause}" if span.kind == "wait" else str(span.kind),
            "cat": str(span.kind),
            "pid": _REQUESTS,
            "tid": tracks[span.request_id],
            **_span(span.start_s, span.end_s),
            "args": {
                "first step": int(span.start_step),
                "last step": int(span.end_step),
                "tokens": int(span.num_tokens),
            },
        }
        for span in spans.itertuples()
    ]


def _instants(events: pd.DataFrame, tracks: dict[str, int]) -> list[dict[str, Any]]:
    found = []
    for event in events[events["kind"].isin(_INSTANTS)].itertuples():
        track = tracks.get(event.request_id)
        detail = event.detail if isinstance(event.detail, str) else ""
        found.append(
            {
                "ph": "i",
                "s": "g" if track is None else "t",  # across all tracks, or on this one
                "name": str(event.kind),
                "pid": _ENGINE if track is None else _REQUESTS,
                "tid": track or 1,
                "ts": _microseconds(event.time_s),
                "args": {"detail": detail},
            }
        )
    return found


def _span(start_s: float, end_s: float) -> dict[str, Any]:
    """Return begin and length; from rounded ends, so that neighbours neither overlap nor part."""
    start = _microseconds(start_s)
    return {"ph": "X", "ts": start, "dur": round(_microseconds(end_s) - start, 3)}


def _microseconds(seconds: float) -> float:
    return round(1e6 * seconds, 3)
