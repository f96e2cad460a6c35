"""Server: what ``serve()`` returns, to hold in a notebook."""

from __future__ import annotations

import atexit
import os
import socket
import threading
from contextlib import suppress
from typing import Any

from toolkit.engine import Engine
from toolkit.registry import Holding, register
from toolkit.server.address import Address
from toolkit.server.app import build_app
from toolkit.server.generation import Generation
from toolkit.server.http_thread import HttpThread
from toolkit.server.logs import LogLines, LogTail
from toolkit.server.metrics import ServerMetrics
from toolkit.server.metrics_table import MetricsTable
from toolkit.server.served import ServedModel
from toolkit.server.server_handle import ServerHandle
from toolkit.server.settings import ServerSettings

__all__ = ["Server"]

_EVERYWHERE = ("0.0.0.0", "::")


class Server(ServerHandle):
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
        settings: ServerSettings,
        owns_llm: bool,
    ) -> None:
        self.llm = llm
        self.settings = settings
        self.address = _address(listener, settings)
        self._served = served
        self._owns_llm = owns_llm
        self._log = LogTail()
        self._stop_lock = threading.Lock()
        self._socket_file = None if settings.uds is None else _SocketFile(settings.uds)
        self._running: set[Generation] = set()
        self._app = build_app(
            served, settings=settings, log=self._log.write_call, running=self._running
        )
        self._metrics: ServerMetrics = self._app.state.metrics
        self._http = HttpThread(self._app, listener, self._log, settings)
        self._http.start()
        if settings.host in _EVERYWHERE and settings.uds is None and not settings.api_keys:
            self._log.write(
                f"warning: {settings.host} is every network of this machine, and no API key is "
                "needed: whoever reaches it may use the model"
            )
        atexit.register(self.stop, grace_s=0.0)
        register(self)

    @property
    def model_name(self) -> str:
        """The first name that the model answers to."""
        return self._served.listed_names[0]

    # ---- look inside

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self._served.engine

    @property
    def logs(self) -> LogLines:
        """The last lines of the log, oldest first: a line per call, and what went wrong."""
        return self._log.lines

    @property
    def log(self) -> LogTail:
        """The log itself; ``server.log.echo(write, calls=True)`` also writes it elsewhere."""
        return self._log

    @property
    def metrics(self) -> MetricsTable:
        """What ``GET /metrics`` says now: a mapping from names to values, a table in a cell."""
        return self._metrics.snapshot()

    @property
    def is_running(self) -> bool:
        """Whether calls are answered."""
        return self._http.is_running

    def holding(self) -> Holding | None:
        """Say what is held, for ``toolkit.live()``; the memory is its LLM's. None once stopped."""
        if not self.is_running:
            return None
        state = self._requests if self._state == "running" else self._state
        return Holding(kind="server", name=self.model_name, state=state, where=self.address.place)

    # ---- end

    def stop(self, *, grace_s: float | None = None) -> None:
        """Free the port; running answers get ``grace_s`` seconds to end, then are aborted.

        By default the grace is that of the settings. Closes the LLM only if ``serve()`` made it.
        Idempotent; works from any thread, an event loop's too.
        """
        grace_s = self.settings.grace_s if grace_s is None else max(0.0, grace_s)
        with self._stop_lock:
            atexit.unregister(self.stop)
            if self._http.is_running:
                self._http.stop(grace_s, self._abort_running)
                self._app.state.switch.resume()  # nobody could, from now on
            if self._socket_file is not None:
                self._socket_file.remove()
            if self._owns_llm:
                self.llm.close()

    def hurry(self) -> None:
        """Let a ``stop()`` in progress abort the running answers now; safe in a signal handler."""
        self._http.hurry()

    # ---- looks

    @property
    def _state(self) -> str:
        if not self.is_running:
            return "stopped"
        if self.engine.is_closed:
            return "running, but its engine was closed: stop it"
        return "running, its engine paused" if self.engine.is_paused else "running"

    @property
    def _requests(self) -> str:
        scheduler = self.engine.scheduler
        return f"{scheduler.num_running} running, {scheduler.num_waiting} waiting"

    def _facts(self) -> dict[str, str]:
        pool = self.engine.cache.pool
        held = self.llm.holding() if self.llm is not None else None
        facts = {
            "requests": self._requests,
            "KV cache": f"{pool.num_used} of {self.engine.config.cache.num_blocks} blocks in use",
        }
        if held is not None and held.weight_bytes is not None and held.kv_bytes is not None:
            mib = 1024**2
            facts["memory"] = (
                f"{held.weight_bytes / mib:,.0f} MiB of weights, "
                f"{held.kv_bytes / mib:,.0f} MiB of KV cache"
            )
        return facts

    def _abort_running(self) -> None:
        for generation in tuple(self._running):
            generation.abort("close")


class _SocketFile:
    """The file of a Unix socket, which stays behind when nobody removes it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._now()

    def remove(self) -> None:
        """Remove the file, unless it is another server's by now."""
        with suppress(OSError):
            if self._now() == self._identity:
                os.unlink(self._path)

    def _now(self) -> tuple[int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino


def _address(listener: socket.socket, settings: ServerSettings) -> Address:
    api_key = next(iter(settings.api_keys), None)
    shared: dict[str, Any] = {"certfile": settings.ssl_certfile, "api_key": api_key}
    if settings.uds is not None:
        return Address(host=settings.host, port=0, uds=settings.uds, **shared)
    host, port = listener.getsockname()[:2]
    return Address(host=str(host), port=int(port), **shared)
