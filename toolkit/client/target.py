"""Whom to ask and how: the server's address, the endpoint, what every request says."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from toolkit.errors import InvalidConfig, ToolkitError

__all__ = ["PATHS", "Target", "facts_of"]

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server and an endpoint of it.

    Args:
        url: The server, with or without /v1: "http://127.0.0.1:8000".
        api: "completions" or "chat".
        api_key: What the server asks for.
        certfile: The certificate to trust alone, of a server that signed its own.
        headers: Further headers of each request.

    Raises:
        InvalidConfig: this is no address, or no such endpoint.
    """

    url: str
    api: str = "completions"
    api_key: str | None = field(default=None, repr=False)
    certfile: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise InvalidConfig(f"{self.url!r} is no server: give http://HOST:PORT")
        if self.api not in PATHS:
            raise InvalidConfig(f"api={self.api!r} is not one of {', '.join(PATHS)}")
        for name, value in {**self._authorization, **self.headers}.items():
            if any(character in f"{name}{value}" for character in "\r\n"):
                raise InvalidConfig(f"the header {name!r:.60} holds the end of a line")

    @property
    def host(self) -> str:
        """The name or number to connect to."""
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        """The port to connect to."""
        return urlsplit(self.url).port or (443 if self.is_secure else 80)

    @property
    def is_secure(self) -> bool:
        """Whether to speak TLS."""
        return urlsplit(self.url).scheme == "https"

    def tls(self) -> ssl.SSLContext | None:
        """Return how to check the server's certificate; None for plain HTTP."""
        return ssl.create_default_context(cafile=self.certfile) if self.is_secure else None

    def path(self, path: str) -> str:
        """Return a path of the API below that of the address."""
        return urlsplit(self.url).path.rstrip("/").removesuffix("/v1") + path

    @property
    def head(self) -> bytes:
        """The head of each request, up to the length of its body."""
        lines = {
            "Host": urlsplit(self.url).netloc.rpartition("@")[2],
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            **self._authorization,
            **self.headers,
        }
        written = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {self.path(PATHS[self.api])} HTTP/1.1\r\n{written}Content-Length: ".encode()

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def get(self, path: str) -> tuple[Any, str | None]:
        """Return the JSON behind a path of the API, and the server's name for its program.

        Raises:
            ToolkitError: there is no such answer.
        """
        connection: http.client.HTTPConnection
        if self.is_secure:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=_ASK_TIMEOUT_S, context=self.tls()
            )
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=_ASK_TIMEOUT_S)
        try:
            connection.request("GET", self.path(path), headers=self._authorization)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise ToolkitError(
                    f"{self.url}{path}: {response.status} {content[:200].decode(errors='replace')}"
                )
            return json.loads(content), response.getheader("server")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ToolkitError(f"{self.url}{path} cannot be read: {error!r}") from error
        finally:
            connection.close()


def facts_of(target: Target) -> dict[str, Any]:
    """Return what a server says of itself: its program and the models that it lists.

    Raises:
        ToolkitError: nobody answers there, or no model is named.
    """
    try:
        answer, program = target.get("/v1/models")
        models = [str(model["id"]) for model in answer["data"]]
        return {"server": program, "models": models, "model": models[0]}
    except (LookupError, TypeError) as error:
        raise ToolkitError(f"{target.url} names no model: {error!r}") from error
    except ToolkitError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ToolkitError(
            f"no server answers at {target.url}: {error.__cause__}; is it running there?"
        ) from error
