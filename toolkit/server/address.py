"""Where a server is, and clients that find it there: over TCP, TLS or a Unix socket."""

from __future__ import annotations

import json
import shlex
import ssl
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI

from toolkit.server.chat_model import chat_model

__all__ = ["Address"]

# What clients send where no key is needed; the openai package insists on one.
_NO_KEY = "EMPTY"
# An address to listen on is not always one to connect to.
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How to reach one server.

    Args:
        host: Where it listens; without meaning for a Unix socket.
        port: Likewise.
        uds: The Unix socket's path, if it listens on one.
        certfile: Its certificate, if it speaks HTTPS; clients made here trust just this one.
        api_key: What clients made here send.
    """

    host: str
    port: int
    uds: str | None = None
    certfile: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The server's root, without ``/v1``; for a Unix socket, what HTTP calls it."""
        scheme = "https" if self.certfile else "http"
        if self.uds is not None:
            return f"{scheme}://localhost"
        host = _REACHABLE.get(self.host, self.host)
        return (
            f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        )

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call ``base_url``: the root with ``/v1``."""
        return f"{self.url}/v1"

    @property
    def place(self) -> str:
        """Where it listens, for people."""
        return f"{self.url} on unix:{self.uds}" if self.uds is not None else self.url

    def http_client(self, **options: Any) -> httpx.Client:
        """Return a plain HTTP client whose paths begin at the root; it sends the key."""
        transport = httpx.HTTPTransport(uds=self.uds, verify=self._verify)
        return httpx.Client(
            **{"transport": transport, "base_url": self.url, "headers": self._headers, **options}
        )

    def openai(self, options: dict[str, Any]) -> OpenAI:
        """Return an ``openai.OpenAI``."""
        return OpenAI(**{**self._own(), **self._transports(is_async=False), **options})

    def async_openai(self, options: dict[str, Any]) -> AsyncOpenAI:
        """Return an ``openai.AsyncOpenAI``."""
        return AsyncOpenAI(**{**self._own(), **self._transports(is_async=True), **options})

    def langchain(self, model: str, options: dict[str, Any]) -> Any:
        """Return a ``langchain_openai.ChatOpenAI`` that counts tokens as the model does."""
        own: dict[str, Any] = {"model": model, **self._own()}
        if self._needs_transport:
            own["http_client"] = self._transports(is_async=False)["http_client"]
            own["http_async_client"] = self._transports(is_async=True)["http_client"]
        return chat_model({**own, **options}, self.http_client)

    def curl(self, model: str) -> str:
        """Return a command that asks for an answer; the key comes from the environment."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
        options = [
            ("--unix-socket", self.uds),
            ("--cacert", self.certfile),
            ("-H", "Content-Type: application/json"),
            ("-d", json.dumps(body)),
        ]
        words = [f"{name} {shlex.quote(value)}" for name, value in options if value is not None]
        if self.api_key is not None:
            words.insert(-1, '-H "Authorization: Bearer $TOOLKIT_API_KEY"')
        return " \\\n  ".join([f"curl {self.base_url}/chat/completions", *words])

    @property
    def _needs_transport(self) -> bool:
        return self.uds is not None or self.certfile is not None

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @property
    def _verify(self) -> ssl.SSLContext | bool:
        """Trust the server's own certificate and no other, whatever name it was made for."""
        if self.certfile is None:
            return True
        context = ssl.create_default_context(cafile=self.certfile)
        context.check_hostname = False
        # Else only a chain that ends at a root of its own would do.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _own(self) -> dict[str, Any]:
        return {"base_url": self.base_url, "api_key": self.api_key or _NO_KEY}

    def _transports(self, *, is_async: bool) -> dict[str, Any]:
        if not self._needs_transport:
            return {}
        shared: dict[str, Any] = {"base_url": self.base_url}
        if is_async:
            transport = httpx.AsyncHTTPTransport(uds=self.uds, verify=self._verify)
            return {"http_client": httpx.AsyncClient(transport=transport, **shared)}
        only = httpx.HTTPTransport(uds=self.uds, verify=self._verify)
        return {"http_client": _SelfClosing(transport=only, **shared)}


class _SelfClosing(httpx.Client):
    """Closed when nobody holds it any more: LangChain's models have no ``close()``."""

    def __del__(self) -> None:
        self.close()
