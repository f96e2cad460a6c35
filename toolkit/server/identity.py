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

from toolkit.server.failures import Refusal, as_refusal

__all__ = ["Identity", "KeyCheck"]

logger = logging.getLogger(__name__)

_PREFIXES = {
    "/v1/chat/completions": "chatcmpl-",
    "/v1/completions": "cmpl-",
    "/v1/embeddings": "embd-",
}
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
        self.api_id = _PREFIXES.get(scope["path"], "req-") + secrets.token_hex(12)
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._log = log
        self._is_logged = False
        self._start_s = time.perf_counter()
        sent_id = Headers(scope=scope).get("x-request-id", "")
        self._client_id = sent_id if 0 < len(sent_id) <= _MAX_ID_LENGTH else None
        scope.setdefault("state", {}).update(api_id=self.api_id, client_request_id=self._client_id)

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the id; log the call before its last part."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._client_id or self.api_id
        elif not message.get("more_body"):
            self.log()  # whoever has the answer finds the line
        await self._send(message)

    def log(self) -> None:
        """Write the line, once."""
        if self._is_logged:
            return
        self._is_logged = True
        duration_ms = 1e3 * (time.perf_counter() - self._start_s)
        path = self._scope["raw_path"].decode("ascii", "backslashreplace")
        line = f"{self._scope['method']} {path} {self.status} {duration_ms:.0f} ms {self.api_id}"
        line += f" {self._client_id!r}" if self._client_id else ""
        failure = " ".join(self._scope["state"].get("failure", "").split())
        self._log(f"{line}: {failure[:_MAX_FAILURE_LENGTH]}" if failure else line)


class KeyCheck:
    """Refuses calls under /v1 that bring none of the API keys."""

    def __init__(self, app: ASGIApp, *, api_keys: Collection[str]) -> None:
        self._app = app
        self._digests = [sha256(key.encode()).digest() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        is_guarded = scope["type"] == "http" and scope["path"].startswith("/v1")
        if is_guarded and not self._has_key(scope):
            refusal = Refusal(
                "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'",
                status=401,
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
            await refusal.response(scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        # Digests have one length, and comparing them with every key takes one time: nothing leaks.
        digest = sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, own) for own in self._digests]
        return scheme.lower() == "bearer" and any(matches)
