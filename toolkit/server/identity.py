"""What happens to every call around its endpoint: an id, the key, a log line, a last resort."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.server.failures import Refusal, as_refusal

__all__ = ["Identity", "KeyCheck"]

logger = logging.getLogger(__name__)

_PREFIXES = {"/v1/chat/completions": "chatcmpl-", "/v1/completions": "cmpl-"}
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
        start_s = time.perf_counter()
        api_id = _PREFIXES.get(scope["path"], "req-") + secrets.token_hex(12)
        sent_id = Headers(scope=scope).get("x-request-id", "")
        client_id = sent_id if 0 < len(sent_id) <= _MAX_ID_LENGTH else None
        scope.setdefault("state", {}).update(api_id=api_id, client_request_id=client_id)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = client_id or api_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            logger.exception("%s failed", api_id)
            if status is None:
                await as_refusal(error).response(scope)(scope, receive, send_with_id)
        finally:
            duration_ms = 1e3 * (time.perf_counter() - start_s)
            path = scope["raw_path"].decode("ascii", "backslashreplace")
            line = f"{scope['method']} {path} {status} {duration_ms:.0f} ms {api_id}"
            line += f" {client_id!r}" if client_id else ""
            failure = " ".join((scope["state"].get("failure") or "").split())
            self._log(f"{line}: {failure[:_MAX_FAILURE_LENGTH]}" if failure else line)


class KeyCheck:
    """Refuses calls under /v1 that do not bring the API key."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._digest = sha256(api_key.encode()).digest()

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
        # Digests have one length, and their comparison takes one time: nothing leaks.
        digest = sha256(key.strip().encode()).digest()
        return scheme.lower() == "bearer" and hmac.compare_digest(digest, self._digest)
