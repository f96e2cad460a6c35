"""Paths of calls, behind a proxy that adds a prefix or takes it away."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["RootPath", "route_path"]


def route_path(scope: Scope) -> str:
    """Return a call's path below the root path: what routes are compared with."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


class RootPath:
    """Answers under a prefix, whether the proxy in front passes it on or not.

    Args:
        app: Gets the prefix as ASGI's ``root_path``, and as the beginning of every path.
        root_path: The prefix, as "/llm".
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] == "http":
            path = scope["path"]
            if path != self._root_path and not path.startswith(f"{self._root_path}/"):
                path = self._root_path + path
            scope = {**scope, "path": path, "root_path": self._root_path}
        await self._app(scope, receive, send)
