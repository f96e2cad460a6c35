"""uvicorn in a thread of its own, with an event loop of its own: it works beside a running loop."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.server.logs import LogTail

__all__ = ["HttpThread", "listen"]

# Starting takes milliseconds; only a machine that hangs needs longer than this.
_START_TIMEOUT_S = 30.0
# An answer that was cut short, but whose client does not read, is dropped after this time.
_HANG_S = 2.0
# A call may still arrive while the port is being closed: look again.
_POLL_S = 0.05
# How many clients may wait for a connection.
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on host and port; port 0 finds a free one.

    Raises:
        InvalidConfig: there is no such host or port.
        ToolkitError: the port is taken or not allowed.
    """
    if not 0 <= port <= 65535:
        raise InvalidConfig(f"port must be from 0 to 65535, not {port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidConfig(f"cannot serve on {host}:{port}: {error}") from error
    # IPv4 first: "localhost" then is 127.0.0.1, which every client also tries.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections linger in TIME_WAIT may be taken again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ToolkitError(
                f"{host}:{port} is taken: stop the server that listens there (server.stop()), "
                "choose another port, or pass port=0 for a free one"
            ) from error
        raise ToolkitError(f"cannot serve on {host}:{port}: {error.strerror}") from error
    return listener


class HttpThread:
    """Serves an application on a listening socket until it is stopped."""

    def __init__(self, app: ASGIApp, listener: socket.socket, log: LogTail) -> None:
        self._listener = listener
        self._log = log
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="info",
                access_log=False,  # server.identity writes a better line
                lifespan="on",
                backlog=_BACKLOG,
                server_header=False,
            )
        )
        self._thread = threading.Thread(target=self._run, name="toolkit-http", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether calls are answered."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start, and return when calls are answered."""
        self._thread.start()
        if not self._server.ready.wait(_START_TIMEOUT_S):
            lines = "\n".join(self._log.lines)
            raise ToolkitError(f"the HTTP server did not start:\n{lines}")

    def stop(self, grace_s: float, cut_short: Callable[[], object]) -> None:
        """Close the port, let running answers end, and return when the thread has ended.

        Args:
            grace_s: How long answers may go on.
            cut_short: Ends the running answers; called when their time is over.
        """
        config: Any = self._server.config  # whose type says int, though any number of seconds works
        config.timeout_graceful_shutdown = grace_s + _HANG_S
        self._server.should_exit = True
        self._thread.join(grace_s)
        while self._thread.is_alive():
            cut_short()
            self._thread.join(_POLL_S)

    def _run(self) -> None:
        self._log.open()
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()
            self._log.close()


class _Uvicorn(uvicorn.Server):
    """Says when it is ready, instead of being asked again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        self.ready.set()
