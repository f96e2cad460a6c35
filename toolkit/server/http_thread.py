"""uvicorn in a thread of its own, with an event loop of its own: it works beside a running loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from toolkit.errors import ToolkitError
from toolkit.garbage import old_objects_set_aside
from toolkit.server.http_protocol import Connection
from toolkit.server.listeners import BACKLOG
from toolkit.server.logs import LogTail
from toolkit.server.settings import ServerSettings

__all__ = ["HttpThread"]

# Starting takes milliseconds; only a machine that hangs needs longer than this.
_START_TIMEOUT_S = 30.0
# An answer that was cut short, but whose client does not read, is dropped after this time.
_HANG_S = 2.0
# Longer than clients keep an idle connection (httpx 5 s, aiohttp 15 s): were the server the
# first to close it, a call could cross the closing and be lost.
_KEEP_ALIVE_S = 75
# A call may still arrive while the port is being closed: look again.
_POLL_S = 0.05


class HttpThread:
    """Serves an application on a listening socket until it is stopped."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, log: LogTail, settings: ServerSettings
    ) -> None:
        self._listener = listener
        self._log = log
        self._over = threading.Event()  # the thread has ended, or nobody is to wait any longer
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_S,
                log_config=None,
                log_level="info",
                access_log=False,  # server.identity writes a better line
                lifespan="on",
                backlog=BACKLOG,
                server_header=False,
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                ssl_keyfile_password=settings.ssl_keyfile_password,
            ),
            log,
        )
        self._thread = threading.Thread(target=self._run, name="toolkit-http", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether calls are answered."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start, and return when calls are answered."""
        self._thread.start()
        if not self._server.ready.wait(_START_TIMEOUT_S) or not self.is_running:
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
        self._over.wait(grace_s)
        while self._thread.is_alive():
            cut_short()
            self._thread.join(_POLL_S)

    def hurry(self) -> None:
        """Let a ``stop()`` in progress, on whatever thread, wait for answers no longer."""
        self._over.set()

    def _run(self) -> None:
        self._log.open()
        try:
            with old_objects_set_aside():
                self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()
            self._log.close()
            self._server.ready.set()  # if it failed before, waiting for it is over
            self._over.set()


class _Uvicorn(uvicorn.Server):
    """Says when it is ready, instead of being asked again and again."""

    def __init__(self, config: uvicorn.Config, log: LogTail) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._log = log

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        asyncio.get_running_loop().set_exception_handler(self._note)
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept connections, let answers end, and leave no connection behind."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # their sockets are closed in the loop's next round

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Write what the event loop complains of into the log, not onto the notebook's output."""
        error = context.get("exception")
        self._log.write(f"{context['message']}{f': {error!r}' if error is not None else ''}")
