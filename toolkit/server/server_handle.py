"""What every handle of a server has, wherever the server runs: its address, clients and end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, TypeVar

from openai import AsyncOpenAI, OpenAI

from toolkit.errors import EngineError
from toolkit.html_table import facts_html
from toolkit.record.why import Why
from toolkit.server.address import Address
from toolkit.server.logs import LogLines
from toolkit.server.metrics_table import MetricsTable
from toolkit.server.settings import ServerSettings
from toolkit.server.snippets import snippets

__all__ = ["ServerHandle"]

H = TypeVar("H", bound="ServerHandle")


class ServerHandle(ABC):
    """A running server, to hold in a notebook; also a context manager, which stops it."""

    address: Address
    settings: ServerSettings

    # ---- who to talk to

    @property
    def url(self) -> str:
        """Where the server is, without ``/v1``; for a Unix socket, ``http://localhost``."""
        return self.address.url

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call ``base_url``: the URL with ``/v1``."""
        return self.address.base_url

    @property
    def host(self) -> str:
        """The address that the server listens on."""
        return self.address.host

    @property
    def port(self) -> int:
        """The port that the server listens on; 0 for a Unix socket."""
        return self.address.port

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The first name that the model answers to."""

    def client(self, **options: Any) -> OpenAI:
        """Return an ``openai.OpenAI`` that talks to this server."""
        return self.address.openai(options)

    def async_client(self, **options: Any) -> AsyncOpenAI:
        """Return an ``openai.AsyncOpenAI`` that talks to this server."""
        return self.address.async_openai(options)

    def langchain(self, **options: Any) -> Any:
        """Return a ``langchain_openai.ChatOpenAI`` that talks to this server."""
        return self.address.langchain(self.model_name, options)

    @property
    def snippets(self) -> dict[str, str]:
        """Code to copy that talks to this server, by client: curl, openai, LangChain."""
        return snippets(self.address, self.model_name)

    # ---- look inside

    @property
    @abstractmethod
    def engine(self) -> Any:
        """The engine that answers, or a view of it."""

    def why(self, request: str) -> Why:
        """Say why a call was slow: a sentence, its causes, who is responsible, a waterfall.

        Args:
            request: The answer's id ("chatcmpl-..."), the client's X-Request-Id, or a request id.

        Raises:
            UnknownRequest: the record has no such request.
            EngineError: the engine keeps no record, or its process has ended.
        """
        record = self.engine.record
        if record is None:
            raise EngineError("this engine keeps no record, so nobody knows")
        why: Why = record.why(request)
        return why

    @property
    @abstractmethod
    def logs(self) -> LogLines:
        """The last lines of the log, oldest first: a line per call, and what went wrong."""

    @property
    @abstractmethod
    def metrics(self) -> MetricsTable:
        """What ``GET /metrics`` says now: a mapping from names to values, a table in a cell."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether calls are answered."""

    # ---- end

    @abstractmethod
    def stop(self, *, grace_s: float | None = None) -> None:
        """Free the port; running answers get some seconds to end, then are aborted. Idempotent."""

    def close(self) -> None:
        """Stop with the grace of the settings."""
        self.stop()

    def __enter__(self: H) -> H:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # ---- looks

    @property
    def _state(self) -> str:
        return "running" if self.is_running else "stopped"

    def _facts(self) -> dict[str, str]:
        """What a cell shows beside state and place."""
        return {}

    def __repr__(self) -> str:
        names = ", ".join(self.settings.served_names) or self.model_name
        return f"{type(self).__name__}({self.address.place}, {names}, {self._state})"

    def facts(self) -> dict[str, str]:
        """Return what a cell shows: state, URL, model, key, and what this kind of server adds."""
        return {
            "state": self._state,
            "URL": f"{self.base_url} on unix:{self.address.uds}"
            if self.address.uds
            else self.base_url,
            "model": ", ".join(self.settings.served_names) or self.model_name,
            "API key": "needed" if self.settings.api_keys else "none needed",
            **self._facts(),
        }

    def _repr_html_(self) -> str:
        code = self.address.curl(self.model_name) if self.is_running else ""
        return facts_html(type(self).__name__, self.facts(), code=code)
