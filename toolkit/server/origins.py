"""Which web pages may change something here: the server's own, and those whose origin is allowed.

A browser sends a POST without a body for any page, and only keeps the answer from it. Programs
that are no browsers send no origin.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.server.dev import is_dev_path
from toolkit.server.failures import Refusal
from toolkit.server.paths import route_path

__all__ = ["OriginCheck"]


class OriginCheck:
    """Refuses what would change the engine, or a stored response, for a page from elsewhere.

    Calls that bring a body are safe without it: they need ``content-type: application/json``, for
    which browsers ask first.

    Args:
        app: Gets the calls that are let through.
        allowed_origins: Pages that may call, as in CORS; "*" is any.
    """

    def __init__(self, app: ASGIApp, *, allowed_origins: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if not _changes_something(scope) or self._is_welcome(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refusal = Refusal(
            "this page may not change anything here: its origin is not among allowed_origins",
            status=403,
            code="origin_not_allowed",
        )
        await refusal.response(scope)(scope, receive, send)

    def _is_welcome(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or "*" in self._allowed or origin in self._allowed:
            return True
        # The page that /docs is; "null" has no host.
        host = origin.partition("://")[2]
        return bool(host) and host == headers.get("host")


def _changes_something(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    path = route_path(scope)
    return is_dev_path(path) or path.startswith("/v1/responses/")
