"""A server that passes calls on to a correct one, and alters the answers on their way back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx

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
        instead: Answers the calls to a path from their bodies, without asking the correct server:
            with an object, or with the list of a stream's events.
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
        instead: Mapping[str, Callable[[Json], Any]] | None = None,
    ) -> None:
        self.asked, self.whole, self.events = asked, whole, events
        self.error, self.status, self.headers = error, status, headers
        self.instead = instead or {}

    def body(self, raw: bytes) -> bytes:
        """Return what the correct server is asked."""
        try:
            body = json.loads(raw)
        except ValueError:
            return raw  # bad on purpose
        return json.dumps(self.asked(body)).encode() if isinstance(body, dict) else raw

    def content(self, truth: httpx.Response) -> str:
        """Return what is told in place of an answer."""
        media_type = truth.headers.get("content-type", "")
        if media_type.startswith("text/event-stream"):
            payloads = [line.removeprefix("data: ") for line in truth.text.splitlines() if line]
            told = self.events([p if p == "[DONE]" else json.loads(p) for p in payloads])
            return as_stream(told)
        if media_type.startswith("application/json"):
            alter = self.whole if truth.status_code == 200 else self.error
            return json.dumps(alter(truth.json()))
        return truth.text


def as_stream(events: Iterable[Any]) -> str:
    return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events)


class Liar:
    """Serves on a port of its own; ``lie`` is what it does to each answer."""

    def __init__(self, truth: str) -> None:
        self.lie = Lie()
        self.truth = httpx.Client(base_url=truth, timeout=60)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Liar:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.truth.close()


def _handler_of(liar: Liar) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["content-length"] or 0)))

        def _answer(self, raw: bytes) -> None:
            lie = liar.lie
            if self.path in lie.instead:
                told = lie.instead[self.path](json.loads(raw))
                kind = "text/event-stream" if isinstance(told, list) else "application/json"
                text = as_stream(told) if isinstance(told, list) else json.dumps(told)
                self._send(200, text, {"content-type": kind})
                return
            kept = ("authorization", "content-type", "x-request-id")
            headers = {name: self.headers[name] for name in kept if name in self.headers}
            truth = liar.truth.request(
                self.command, self.path, content=lie.body(raw), headers=headers
            )
            told_headers = {n: truth.headers[n] for n in kept if n in truth.headers}
            self._send(lie.status(truth.status_code), lie.content(truth), lie.headers(told_headers))

        def _send(self, status: int, text: str, headers: dict[str, str]) -> None:
            content = text.encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing: a test's output is about the test."""

    return Handler
