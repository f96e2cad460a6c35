"""A server that passes calls on to a correct one, and alters the answers on their way back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.server.http_thread import HttpThread, listen
from toolkit.server.logs import LogTail

Json = dict[str, Any]
Events = list[Any]  # the chunks of a stream; "[DONE]" is text


def _as_it_is(value: Any) -> Any:
    return value


class Lie:
    """What is altered: each part is a function from the truth to what is told.

    Args:
        asked: Alters the body of a call.
        whole: Alters an answer of status 200.
        events: Alters the events of a stream.
        error: Alters the body of an error.
        status: Alters the status, whatever the body.
        headers: Alters the headers of an answer.
    """

    def __init__(
        self,
        *,
        asked: Callable[[Json], Json] = _as_it_is,
        whole: Callable[[Json], Any] = _as_it_is,
        events: Callable[[Events], Iterable[Any]] = _as_it_is,
        error: Callable[[Json], Any] = _as_it_is,
        status: Callable[[int], int] = _as_it_is,
        headers: Callable[[dict[str, str]], dict[str, str]] = _as_it_is,
    ) -> None:
        self.asked, self.whole, self.events = asked, whole, events
        self.error, self.status, self.headers = error, status, headers


class Liar:
    """Serves on a port of its own; ``lie`` is what it does to each answer."""

    def __init__(self, truth: str) -> None:
        self.lie = Lie()
        self._truth = truth
        methods = ["GET", "POST"]
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._http = HttpThread(app, listener, LogTail())

    def __enter__(self) -> Liar:
        self._http.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.stop(1.0, lambda: None)

    async def _answer(self, request: Request) -> Response:
        body = self._altered_body(await request.body())
        kept = ("authorization", "content-type", "x-request-id")
        headers = {name: value for name, value in request.headers.items() if name in kept}
        async with httpx.AsyncClient(base_url=self._truth, timeout=60) as client:
            path = request.url.path
            truth = await client.request(request.method, path, content=body, headers=headers)
        content: Any = truth.text
        media_type = truth.headers.get("content-type", "")
        if media_type.startswith("text/event-stream"):
            content = self._altered_events(content)
        elif media_type.startswith("application/json"):
            alter = self.lie.whole if truth.status_code == 200 else self.lie.error
            content = json.dumps(alter(json.loads(content)))
        told = {"content-type": media_type}
        if "x-request-id" in truth.headers:
            told["x-request-id"] = truth.headers["x-request-id"]
        return Response(content, self.lie.status(truth.status_code), self.lie.headers(told))

    def _altered_body(self, raw: bytes) -> bytes:
        try:
            body = json.loads(raw)
        except ValueError:
            return raw  # bad on purpose
        return json.dumps(self.lie.asked(body)).encode() if isinstance(body, dict) else raw

    def _altered_events(self, text: str) -> str:
        payloads = [line.removeprefix("data: ") for line in text.splitlines() if line]
        events = [p if p == "[DONE]" else json.loads(p) for p in payloads]
        told = self.lie.events(events)
        return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in told)
