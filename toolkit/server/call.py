"""One call for tokens: under which id, for which model, with which fields; headers and times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from anyio import to_thread
from fastapi import Request as HttpRequest
from fastapi import Response
from pydantic import BaseModel

from toolkit.request import Request, RequestOrigin
from toolkit.server.failures import Refusal
from toolkit.server.protocol import Body, ignored_fields
from toolkit.server.served import VERSION, ServedModel
from toolkit.server.server_timing import server_timing
from toolkit.server.settings import ServerSettings

__all__ = [
    "FINGERPRINT",
    "Call",
    "in_thread_if_long",
    "num_characters",
    "whole_answer",
    "whole_body",
]

T = TypeVar("T")

FINGERPRINT = f"toolkit-{VERSION}"
# Tokenising this many characters takes about a millisecond: as long as other clients may wait.
_MANY_CHARACTERS = 4000
# Headers have room for some names; whoever sends more learns enough from these.
_MAX_IGNORED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Call:
    """What every answer to one call repeats."""

    api_id: str
    model: str
    created: int
    arrival_s: float
    origin: RequestOrigin
    headers: dict[str, str]

    @classmethod
    def of(cls, http: HttpRequest, body: Body) -> Call:
        """Check model and fields; raises Refusal or InvalidRequest."""
        served: ServedModel = http.app.state.served
        settings: ServerSettings = http.app.state.settings
        state = http.state
        ignored = ignored_fields(body)
        if ignored and settings.strict:
            raise Refusal(
                f"unknown fields, which a strict server does not ignore: {', '.join(ignored)}",
                param=ignored[0][:100],
                code="unknown_parameter",
            )
        if body.request_id is not None:
            # From here on the log and the headers have it too.
            state.api_id = f"{state.api_id.partition('-')[0]}-{body.request_id}"
        return cls(
            api_id=state.api_id,
            model=served.echoed_name(body.model),
            created=int(time.time()),
            arrival_s=served.engine.clock.now(),
            origin=RequestOrigin(state.api_id, http.url.path, state.client_request_id),
            headers={"x-toolkit-ignored": _listed(ignored)} if ignored else {},
        )


def whole_answer(answer: BaseModel, call: Call, first: Request) -> Response:
    """Send an answer in one piece, with the times of its first request."""
    return whole_body(answer.model_dump_json(exclude_unset=True).encode(), call, first)


def whole_body(payload: bytes, call: Call, first: Request) -> Response:
    """Send JSON in one piece, with the times of the call's first request."""
    return Response(
        payload,
        media_type="application/json",
        headers={**call.headers, "server-timing": server_timing(first)},
    )


async def in_thread_if_long(num_characters: int, work: Callable[[], T]) -> T:
    """Do the work here when it is short, else in a thread that leaves the event loop free."""
    if num_characters < _MANY_CHARACTERS:
        return work()
    return await to_thread.run_sync(work)


def num_characters(*values: Any) -> int:
    """Count about as many characters as JSON values have, up to what ``in_thread_if_long`` asks."""
    found = 0
    rest = list(values)
    while rest and found < _MANY_CHARACTERS:
        value = rest.pop()
        found += len(value) if isinstance(value, (str, list, Mapping)) else 1
        if found >= _MANY_CHARACTERS:
            break
        if isinstance(value, Mapping):
            rest += [*value, *value.values()]
        elif isinstance(value, list):
            rest += value
    return found


def _listed(names: list[str]) -> str:
    """Write names into a header; quoted, since they are whatever the client sent."""
    return ", ".join(quote(name, safe="")[:100] for name in names[:_MAX_IGNORED_SHOWN])
