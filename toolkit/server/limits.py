"""What one client may take: the size and pace of a body, calls at once, time for an answer.

Each limit is a layer around the application; a call beyond it is answered in OpenAI's shape, and
the connection can be used again unless its client stopped in the middle of a body.
"""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.server.failures import Refusal
from toolkit.server.paths import route_path

__all__ = ["BodyLimit", "ConcurrencyLimit", "TimeLimit", "nesting_exceeds"]

# Lists and objects inside each other. Far deeper than any request of a client, and few enough for
# the recursion of whatever reads a part of the body later: validation, templates, grammars.
_MAX_DEPTH = 128
# So many times as long as a pause may be, a whole body may take.
_PAUSES_PER_BODY = 10
# An answer that ran out of time tells its reader so, if the reader takes it within this time.
_FAREWELL_S = 1.0


class BodyLimit:
    """Reads a body before the application runs, if it is not too long, too slow or too deep.

    Args:
        app: Gets the body in one piece.
        max_bytes: Longest body, counted as it arrives; what headers announce is refused at once.
        timeout_s: Longest time without a byte; all of the body may take ten times as long.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except Refusal as refusal:
            await refusal.response(scope)(scope, receive, send)
            return
        if body is None:
            return  # the client left: nobody reads an answer
        replay: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return replay.pop() if replay else await receive()

        await self._app(scope, receive_again, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body, or None if the client left."""
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._max_bytes:
            raise self._too_long(f"of {announced[:20]} bytes")
        parts: list[bytes] = []
        num_bytes = 0
        more = True
        end_s = anyio.current_time() + _PAUSES_PER_BODY * self._timeout_s
        while more:
            left_s = end_s - anyio.current_time()
            with anyio.move_on_after(min(self._timeout_s, left_s)) as pause:
                message = await receive()
            if pause.cancelled_caught:
                raise self._too_slow(num_bytes, is_steady=left_s < self._timeout_s)
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            num_bytes += len(parts[-1])
            if num_bytes > self._max_bytes:
                raise self._too_long("")
            more = message.get("more_body", False)
        body = b"".join(parts)
        if nesting_exceeds(body, _MAX_DEPTH):
            raise Refusal(f"the body nests lists and objects more than {_MAX_DEPTH} deep")
        return body

    def _too_long(self, size: str) -> Refusal:
        return Refusal(
            f"the body {size + ' ' if size else ''}is longer than this server takes: "
            f"{self._max_bytes} bytes (max_body_bytes, or --max-body-mb)",
            status=413,
            code="request_too_large",
        )

    def _too_slow(self, num_bytes: int, *, is_steady: bool) -> Refusal:
        whole_s = _PAUSES_PER_BODY * self._timeout_s
        return Refusal(
            f"the body had {num_bytes} bytes after {whole_s:g} s, the longest that it may take"
            if is_steady
            else f"the body stopped after {num_bytes} bytes; "
            f"nothing came for {self._timeout_s:g} s",
            status=408,
            code="request_timeout",
            headers={"connection": "close"},  # whatever comes yet is half a body
        )


class ConcurrencyLimit:
    """Refuses calls that cost something while as many run as may run at once.

    Args:
        app: Answers.
        max_requests: How many.
    """

    def __init__(self, app: ASGIApp, *, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._num_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if not _asks_for_tokens(scope):
            await self._app(scope, receive, send)
            return
        if self._num_running >= self._max_requests:
            refusal = Refusal(
                f"{self._num_running} calls run here, and no more may run at once "
                "(max_concurrent_requests); try again soon",
                status=429,
                kind="requests",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
            await refusal.response(scope)(scope, receive, send)
            return
        self._num_running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_running -= 1


class TimeLimit:
    """Ends calls that cost something and take too long; whatever ran for them is aborted.

    Args:
        app: Answers; it is cancelled when the time is over.
        timeout_s: How long it may take.
    """

    def __init__(self, app: ASGIApp, *, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and end it if need be."""
        if not _asks_for_tokens(scope):
            await self._app(scope, receive, send)
            return
        sent: list[str] = []

        async def note(message: Message) -> None:
            if not sent:
                sent.append(message["type"])
            await send(message)

        with anyio.move_on_after(self._timeout_s) as limit:
            await self._app(scope, receive, note)
        if not limit.cancelled_caught:
            return
        refusal = Refusal(
            f"the answer took more than {self._timeout_s:g} s, which is the limit here "
            "(request_timeout_s); ask for fewer tokens",
            status=504,
            kind="server_error",
            code="request_timeout",
            headers={"x-should-retry": "false"},
        )
        with anyio.move_on_after(_FAREWELL_S):
            if not sent:
                await refusal.response(scope)(scope, receive, send)
                return
            scope["state"]["failure"] = refusal.message
            event = b"data: %b\n\n" % refusal.json()
            await send({"type": "http.response.body", "body": event, "more_body": False})


def nesting_exceeds(body: bytes, depth: int) -> bool:
    """Say whether JSON nests lists and objects deeper than that, without parsing it."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    # Strings go: without escaped quotes, every second part between quotes is one.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(plain.split(b'"')[::2])
    here = 0
    for byte in outside.translate(None, _NO_BRACKETS):
        here += 1 if byte in _OPENING else -1
        if here > depth:
            return True
    return False


_OPENING = frozenset(b"[{")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _asks_for_tokens(scope: Scope) -> bool:
    """Say whether a call may take long: its answer is computed, or its text tokenised."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path = route_path(scope)
    return path.startswith("/v1/") or path in ("/tokenize", "/detokenize")
