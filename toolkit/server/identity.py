"""What happens to every call around its endpoint: an id, the key, a log line, a last resort."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Collection
from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.server.dev import is_dev_path
from toolkit.server.failures import Refusal, as_refusal
from toolkit.server.paths import route_path

__all__ = ["Identity", "KeyCheck"]

logger = logging.getLogger(__name__)

_PREFIXES = {
    "/v1/chat/completions": "chatcmpl-",
    "/v1/completions": "cmpl-",
    "/v1/embeddings": "embd-",
    "/v1/responses": "resp_",
}
# What anybody may ask, with a key or without: for probes, and what /docs is made of.
_OPEN_PATHS = frozenset(
    ("/health", "/ping", "/version", "/metrics", "/docs", "/redoc", "/openapi.json")
)
# A client's own id is echoed and stored; a longer one is none.
_MAX_ID_LENGTH = 256
# A message may quote what the client sent; the log keeps its beginning.
_MAX_FAILURE_LENGTH = 300


class Identity:
    """Gives every call an id, sends it back in X-Request-Id, and logs the call when it ends.

    An exception that nobody expected becomes a 500 here; further out, uvicorn would also cut the
    connection.
    """

    def __init__(self, app: ASGIApp, *, log: Callable[[str], object]) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = _Answering(scope, send, self._log)
        try:
            await self._app(scope, receive, call.send)
        except Exception as error:
            logger.exception("%s failed", call.api_id)
            if call.status is None:
                await as_refusal(error).response(scope)(scope, receive, call.send)
        finally:
            call.log()


class _Answering:
    """One call under its id, until its line is in the log."""

    def __init__(self, scope: Scope, send: Send, log: Callable[[str], object]) -> None:
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._log = log
        self._is_logged = False
        self._start_s = time.perf_counter()
        sent_id = Headers(scope=scope).get("x-request-id", "")
        self._client_id = sent_id if 0 < len(sent_id) <= _MAX_ID_LENGTH else None
        api_id = _PREFIXES.get(route_path(scope), "req-") + secrets.token_hex(12)
        scope.setdefault("state", {}).update(api_id=api_id, client_request_id=self._client_id)

    @property
    def api_id(self) -> str:
        """The call's id; its body may hold another one than it was given."""
        return str(self._scope["state"]["api_id"])

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the id; log the call before its last part."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._client_id or self.api_id
        elif not message.get("more_body") or "failure" in self._scope["state"]:
            self.log()  # whoever has the answer, or the event that ends a stream, finds the line
        await self._send(message)

    def log(self) -> None:
        """Write the line, once."""
        if self._is_logged or self._is_look:
            return
        self._is_logged = True
        duration_ms = 1e3 * (time.perf_counter() - self._start_s)
        path = self._scope["raw_path"].decode("ascii", "backslashreplace")
        line = f"{self._scope['method']} {path} {self.status} {duration_ms:.0f} ms {self.api_id}"
        line += f" {self._client_id!r}" if self._client_id else ""
        failure = " ".join(self._scope["state"].get("failure", "").split())
        self._log(f"{line}: {failure[:_MAX_FAILURE_LENGTH]}" if failure else line)

    @property
    def _is_look(self) -> bool:
        """Whether it was only looked in: views and scrapers do so every second, for hours."""
        path = route_path(self._scope)
        is_looking = path == "/metrics" or path.startswith("/engine/")
        return is_looking and self._scope["method"] == "GET" and self.status == 200


class KeyCheck:
    """Refuses calls that bring no API key.

    Open is what probes ask, who bring no keys, and the description of the endpoints.

    Args:
        app: Gets the calls that are let through.
        api_keys: Any one of them is enough; without any, all calls are let through.
        dev: Whether whoever may call the others may also call the endpoints for development.
        control_key: Opens these to whoever has it, in any case.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_keys: Collection[str],
        dev: bool,
        control_key: str | None,
    ) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in api_keys]
        self._dev = dev
        self._control = [] if control_key is None else [_digest(control_key.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal.response(scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        path = route_path(scope)
        is_dev = is_dev_path(path)
        if path in _OPEN_PATHS:
            return None
        sent = _sent_key(scope)
        if is_dev and _is_among(sent, self._control):
            return None
        if is_dev and not self._dev:
            return Refusal(
                f"{scope['method']} {path} is for development and not served here; start the "
                "server with --dev, or serve(dev=True)",
                status=404,
                code="unknown_url",
            )
        if not self._digests or _is_among(sent, self._digests):
            return None
        return Refusal(
            "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'",
            status=401,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def _sent_key(scope: Scope) -> bytes | None:
    """Return the bytes of the key that a call brings."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, key = value.partition(b" ")
            return bytes(key.strip()) if kind.lower() == b"bearer" else None
    return None


def _is_among(sent: bytes | None, digests: Collection[bytes]) -> bool:
    """Compare with every key; digests have one length, so it takes one time and nothing leaks."""
    digest = _digest(sent or b"")
    matches = [hmac.compare_digest(digest, own) for own in digests]
    return sent is not None and any(matches)


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
