"""HTTP on one connection, as uvicorn speaks it, with two things added.

What is no HTTP at all is refused in OpenAI's shape; a client that opens a connection, or begins a
call, and then sends nothing more does not hold it for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from toolkit.server.failures import Refusal

__all__ = ["Connection"]

# From the opening of a connection, or the first byte of a call, to the end of its headers.
_HEADER_TIMEOUT_S = 30.0


class Connection(HttpToolsProtocol):
    """One client's connection."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a call, but not for ever."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait."""
        self._cancel_header_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the rest of the headers."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """Start the call."""
        self._cancel_header_timer()
        super().on_headers_complete()

    def shutdown(self) -> None:
        """Close, after the answer in progress if there is one."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.transport.get_write_buffer_size() == 0:
            # TLS would wait for the client to say goodbye, and an idle client does not listen.
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close the connection: nobody knows where the next begins."""
        body = Refusal(msg).json()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_headers(self) -> None:
        self._cancel_header_timer()
        loop: Any = self.loop
        self._header_timer = loop.call_later(_HEADER_TIMEOUT_S, self.timeout_keep_alive_handler)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
