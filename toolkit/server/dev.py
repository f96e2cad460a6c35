"""Endpoints for development: look into the engine, hold it, read its tables.

Served only with ``serve(dev=True)`` or ``--dev``: whoever may call them can hold up everybody.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Query, Response
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse

from toolkit.engine import Engine
from toolkit.errors import InvalidParameter, RecordError, UnknownRequest
from toolkit.record.why_parts import why_to_json
from toolkit.server.failures import UNKNOWN_REQUEST, Refusal

__all__ = ["DEV_PATHS", "EngineSwitch", "add_dev_routes", "is_dev_path"]

DEV_PATHS = ("/reset_prefix_cache", "/pause", "/resume", "/is_paused", "/engine/")
# Rows of a table that are written at once; others are answered in between.
_ROWS_AT_ONCE = 5000


def is_dev_path(path: str) -> bool:
    """Say whether a path belongs to the endpoints for development."""
    return any(path == known or path.startswith(known) for known in DEV_PATHS)


class EngineSwitch:
    """Holds an engine and lets it go, for callers who do not know of each other.

    The engine counts pauses; over HTTP there is one, however often it is asked for.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_held = False
        self._lock = threading.Lock()

    def pause(self) -> None:
        """Hold the engine between two steps."""
        with self._lock:
            if not self._is_held:
                self._engine.pause()
                self._is_held = True

    def resume(self) -> None:
        """Let it go, if it was held here."""
        with self._lock:
            if self._is_held:
                self._engine.resume()
                self._is_held = False


def add_dev_routes(app: FastAPI, switch: EngineSwitch, *, documented: bool) -> None:
    """Serve the endpoints for development, to those whom ``KeyCheck`` lets through.

    They are no coroutines: what waits for the engine runs in threads.

    Args:
        app: Gets the routes.
        switch: Of the engine.
        documented: Whether /docs shows them.
    """
    app.state.switch = switch
    router = APIRouter(include_in_schema=documented)
    router.post("/reset_prefix_cache")(reset_prefix_cache)
    router.post("/pause")(pause)
    router.post("/resume")(resume)
    router.get("/is_paused")(is_paused)
    router.get("/engine/state")(engine_state)
    router.get("/engine/why/{name:path}")(why)
    router.get("/engine/record")(engine_record)
    router.get("/engine/record.zip")(record_file)
    router.get("/engine/ttft")(record_ttft)
    router.get("/engine/facts")(record_facts)
    router.post("/engine/spans")(record_spans)
    router.get("/engine/record/{table}")(record_table)
    app.include_router(router)


def reset_prefix_cache(http: HttpRequest) -> dict[str, int]:
    """Forget all reusable blocks; say how many there were."""
    return {"num_evicted": _engine(http).reset_prefix_cache()}


def pause(http: HttpRequest) -> dict[str, bool]:
    """Hold the engine between two steps; requests wait in line."""
    http.app.state.switch.pause()
    return is_paused(http)


def resume(http: HttpRequest) -> dict[str, bool]:
    """Let the engine go on."""
    http.app.state.switch.resume()
    return is_paused(http)


def is_paused(http: HttpRequest) -> dict[str, bool]:
    """Say whether the engine is held, by whomever."""
    return {"is_paused": _engine(http).is_paused}


def engine_state(http: HttpRequest) -> dict[str, Any]:
    """Return the scheduler's and the cache's state between two steps."""
    engine = _engine(http)
    pool = engine.cache.pool
    snapshot = engine.snapshot()
    return {
        **asdict(snapshot),
        "blocks": snapshot.blocks._asdict(),
        "is_running": engine.is_running,
        "is_paused": engine.is_paused,
        "scheduler": asdict(engine.config.scheduler),
        "cache": {
            **asdict(engine.config.cache),
            "num_used": pool.num_used,
            "num_cached": pool.num_cached,
            "num_free": pool.num_free,
            "num_evicted": pool.num_evicted,
        },
    }


def why(name: str, http: HttpRequest) -> dict[str, Any]:
    """Say why a request was slow, by an answer's id, an X-Request-Id or a request id."""
    try:
        return why_to_json(_record(http).why(name))
    except UnknownRequest as error:
        raise Refusal(str(error), status=404, param="name", code=UNKNOWN_REQUEST) from error


def engine_record(http: HttpRequest) -> dict[str, Any]:
    """Say which tables there are."""
    record = _record(http)
    return {
        "tables": list(record.tables),
        "level": record.level,
        "started_at": record.started_at.isoformat(),
        "num_dropped": dict(record.num_dropped),
        "num_rows": {table: record.num_rows(table) for table in record.tables},
        "generation": record.generation,
        "config": record.config,
        "num_blocks": record.num_blocks,
        "block_size": record.block_size,
    }


def record_file(http: HttpRequest) -> Response:
    """Return everything that is recorded, as ``record.save`` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = _record(http).save(Path(folder) / "record.zip")
        return Response(path.read_bytes(), media_type="application/zip")


def record_facts(
    http: HttpRequest, request_id: str, position: Annotated[int, Query(ge=0)]
) -> dict[str, Any] | None:
    """Return what the sampler did for one token; null where that was not recorded."""
    facts: dict[str, Any] | None = _record(http).facts(request_id, position)
    return facts


def record_spans(
    http: HttpRequest, request_ids: Annotated[list[str] | None, Body(embed=True)] = None
) -> Response:
    """Return the spans of some requests' lives, or of all, as ``format=split`` has tables."""
    try:
        spans = _record(http).spans(request_ids)
    except InvalidParameter as error:
        raise Refusal(str(error), status=400) from error
    return StreamingResponse(_split(spans, None), media_type="application/json")


def record_ttft(
    http: HttpRequest, request_id: Annotated[list[str], Query(default_factory=list)]
) -> dict[str, float]:
    """Return seconds from arrival to first token of these requests, where they have one."""
    found: dict[str, float] = _record(http).ttft_s(request_id)
    return found


def record_table(
    table: str,
    http: HttpRequest,
    format: Annotated[str, Query(pattern="^(split|jsonl)$")] = "split",
    tail: Annotated[int | None, Query(ge=0)] = None,
    since: Annotated[int | None, Query(ge=0)] = None,
    column: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """Return a table of the record, its last ``tail`` rows, or those ``since`` a cursor.

    ``format=split``: ``{"columns", "dtypes", "data", "cursor"}``; ``format=jsonl``: an object a
    line. ``cursor`` is for the next call, where ``since`` was given; ``column`` then names the
    columns that are wanted, by default all.
    """
    record = _record(http)
    if table not in record.tables:
        raise Refusal(
            f"the record has no table {table!r}; it has {', '.join(record.tables)}",
            status=404,
            param="table",
        )
    cursor = None
    if since is not None:
        try:
            frame, cursor = record.since(table, since, column)
        except RecordError as error:
            raise Refusal(str(error), status=400, param="since") from error
    else:
        frame = getattr(record, table) if tail is None else record.tail(table, tail)
    if format == "jsonl":
        return StreamingResponse(_lines(frame), media_type="application/jsonl")
    return StreamingResponse(_split(frame, cursor), media_type="application/json")


def _lines(frame: Any) -> Iterator[str]:
    for start in range(0, len(frame), _ROWS_AT_ONCE):
        part = frame.iloc[start : start + _ROWS_AT_ONCE]
        yield part.to_json(orient="records", lines=True, double_precision=15)


def _split(frame: Any, cursor: int | None) -> Iterator[str]:
    head = {
        "cursor": cursor,
        "columns": list(frame.columns),
        "dtypes": [str(dtype) for dtype in frame.dtypes],
    }
    yield json.dumps(head)[:-1] + ', "data": ['
    for start in range(0, len(frame), _ROWS_AT_ONCE):
        part = frame.iloc[start : start + _ROWS_AT_ONCE]
        rows = part.to_json(orient="values", double_precision=15)[1:-1]
        yield f"{', ' if start else ''}{rows}"
    yield "]}"


def _engine(http: HttpRequest) -> Engine:
    engine: Engine = http.app.state.served.engine
    return engine


def _record(http: HttpRequest) -> Any:
    record = _engine(http).record
    if record is None:
        raise Refusal("this engine keeps no record", status=404)
    return record
