"""Whom to ask and how: the server's address, the endpoint, what every request says."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from toolkit.client.response import BadResponse, ResponseReader
from toolkit.errors import InvalidConfig, ToolkitError

__all__ = ["PATHS", "Target", "facts_of"]

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
# A server that needs longer to say which models it has is not well.
_ASK_TIMEOUT_S = 30.0
_MAX_ASKED_BYTES = 16 << 20


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
        lines = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        return self._head("POST", PATHS[self.api], lines) + b"Content-Length: "

    def _head(self, method: str, path: str, lines: Mapping[str, str]) -> bytes:
        """Return the first lines of a request, with the headers that each has."""
        host = urlsplit(self.url).netloc.rpartition("@")[2]
        lines = {"Host": host, **lines, **self._authorization, **self.headers}
        written = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {self.path(path)} HTTP/1.1\r\n{written}".encode()

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def get(self, path: str, *, timeout_s: float = _ASK_TIMEOUT_S) -> tuple[Any, str | None]:
        """Return the JSON behind a path of the API, and the server's name for its program.

        Args:
            path: Below the address.
            timeout_s: In which it must connect, to each address that the server has, and in which
                the whole answer must be there.

        Raises:
            ToolkitError: there is no such answer, or none of a sensible size in time.
        """
        try:
            response, content = self._fetch(path, timeout_s)
            if response.status != 200:
                told = content[:200].decode(errors="replace")
                raise ToolkitError(f"{self.url}{path}: {response.status} {told}")
            program = response.headers.get(b"server")
            return json.loads(content), None if program is None else program.decode("latin-1")
        except (OSError, ValueError, RecursionError, BadResponse) as error:
            raise ToolkitError(f"{self.url}{path} cannot be read: {error!r}") from error

    def _fetch(self, path: str, timeout_s: float) -> tuple[ResponseReader, bytes]:
        response, content = ResponseReader(), bytearray()
        with self._connect(timeout_s) as connection:
            deadline_s = time.monotonic() + timeout_s
            lines = {"Accept": "application/json", "Connection": "close"}
            connection.sendall(self._head("GET", path, lines) + b"\r\n")
            while not response.is_done:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"no end after {timeout_s:g} s")
                connection.settimeout(left_s)
                received = connection.recv(64 << 10)
                content += response.feed(received)
                if not received:
                    response.end()
                if len(content) > _MAX_ASKED_BYTES:
                    raise ValueError(f"no end after {len(content)} bytes")
        return response, bytes(content)

    def _connect(self, timeout_s: float) -> socket.socket:
        tls = self.tls()
        plain = socket.create_connection((self.host, self.port), timeout_s)
        if tls is None:
            return plain
        with plain:  # wrapped, it lives on in the socket that is returned
            return tls.wrap_socket(plain, server_hostname=self.host)


def facts_of(target: Target, *, timeout_s: float = _ASK_TIMEOUT_S) -> dict[str, Any]:
    """Return what a server says of itself: its program and the models that it lists.

    Args:
        target: The server.
        timeout_s: See ``Target.get``; it has no more than 30 s in any case.

    Raises:
        ToolkitError: nobody answers there, or no model is named.
    """
    try:
        answer, program = target.get("/v1/models", timeout_s=min(timeout_s, _ASK_TIMEOUT_S))
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
