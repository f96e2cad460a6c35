"""Server: what ``serve()`` returns, to hold in a notebook."""

from __future__ import annotations

import atexit
import socket
import threading
from html import escape
from types import TracebackType
from typing import Any

from openai import AsyncOpenAI, OpenAI

from toolkit.engine import Engine
from toolkit.server.app import build_app
from toolkit.server.generation import Generation
from toolkit.server.http_thread import HttpThread
from toolkit.server.logs import LogTail
from toolkit.server.metrics import ServerMetrics
from toolkit.server.metrics_table import MetricsTable
from toolkit.server.served import ServedModel

__all__ = ["Server"]

# Running answers may take this long after stop().
_GRACE_S = 5.0
# What clients send where no key is needed; the openai package insists on one.
_NO_KEY = "EMPTY"


class Server:
    """A running OpenAI-compatible server.

    >>> server = serve(port=0)                                       # doctest: +SKIP
    >>> answer = server.client().completions.create(model="toolkit-demo", prompt="Hello")
    ...                                                              # doctest: +SKIP
    >>> server.stop()                                                # doctest: +SKIP

    Use ``serve()`` to get one. Also a context manager, which stops it.
    """

    def __init__(
        self,
        llm: Any,
        served: ServedModel,
        listener: socket.socket,
        *,
        api_key: str | None,
        owns_llm: bool,
    ) -> None:
        self.llm = llm
        self._served = served
        self._api_key = api_key
        self._owns_llm = owns_llm
        self._log = LogTail()
        self._stop_lock = threading.Lock()
        host, port = listener.getsockname()[:2]
        self.host = str(host)
        self.port = int(port)
        self._running: set[Generation] = set()
        app = build_app(served, api_key=api_key, log=self._log.write, running=self._running)
        self._metrics: ServerMetrics = app.state.metrics
        self._http = HttpThread(app, listener, self._log)
        self._http.start()
        atexit.register(self.stop, grace_s=0.0)

    # ---- who to talk to

    @property
    def url(self) -> str:
        """Where the server is, without ``/v1``."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def model_name(self) -> str:
        """The first name that the model answers to."""
        return self._served.listed_names[0]

    def client(self, **options: Any) -> OpenAI:
        """Return an ``openai.OpenAI`` that talks to this server."""
        return OpenAI(**self._client_options(options))

    def async_client(self, **options: Any) -> AsyncOpenAI:
        """Return an ``openai.AsyncOpenAI`` that talks to this server."""
        return AsyncOpenAI(**self._client_options(options))

    def langchain(self, **options: Any) -> Any:
        """Return a ``langchain_openai.ChatOpenAI`` that talks to this server."""
        try:
            from langchain_openai import ChatOpenAI
        except ModuleNotFoundError as error:
            raise ImportError(
                "server.langchain() needs LangChain: pip install langchain-openai"
            ) from error
        return ChatOpenAI(**{"model": self.model_name, **self._client_options(options)})

    # ---- look inside

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self._served.engine

    @property
    def logs(self) -> list[str]:
        """The last lines of the log, oldest first: a line per call, and what went wrong."""
        return self._log.lines

    @property
    def metrics(self) -> MetricsTable:
        """What ``GET /metrics`` says now: a mapping from names to values, a table in a cell."""
        return self._metrics.snapshot()

    @property
    def is_running(self) -> bool:
        """Whether calls are answered."""
        return self._http.is_running

    # ---- end

    def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Free the port; running answers get ``grace_s`` seconds to end, then are aborted.

        Closes the LLM only if ``serve()`` made it. Idempotent.
        """
        with self._stop_lock:
            atexit.unregister(self.stop)
            if self._http.is_running:
                self._http.stop(grace_s, self._abort_running)
            if self._owns_llm:
                self.llm.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        names = ", ".join(self._served.names)
        return f"Server({self.url}, {names}, {'running' if self.is_running else 'stopped'})"

    def _repr_html_(self) -> str:
        scheduler = self.engine.scheduler
        rows = {
            "URL": f"{self.url}/v1",
            "model": ", ".join(self._served.names),
            "state": "running" if self.is_running else "stopped",
            "API key": "needed" if self._api_key is not None else "none needed",
            "requests": f"{scheduler.num_running} running, {scheduler.num_waiting} waiting",
        }
        body = "".join(
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows.items()
        )
        return f"<div><b>Server</b><table>{body}</table></div>"

    def _abort_running(self) -> None:
        for generation in tuple(self._running):
            generation.abort("close")

    def _client_options(self, options: dict[str, Any]) -> dict[str, Any]:
        own = {"base_url": f"{self.url}/v1", "api_key": self._api_key or _NO_KEY}
        return {**own, **options}
