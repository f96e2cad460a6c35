"""HTTP on one connection, as uvicorn speaks it, with three things added.

What is no HTTP at all, or has headers without end, is refused in OpenAI's shape; a client that
opens a connection, or begins a call, and does not come to its body does not hold it for ever,
whether it sends nothing more or a byte now and then; a client that would rather speak
HTTP/2, as Java's does by default, gets its answer over HTTP/1.1.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from toolkit.server.failures import Refusal

__all__ = ["Connection"]

# From the opening of a connection, or the first byte of a call, to the end of its headers.
_HEADER_TIMEOUT_S = 30.0
# The address and the headers of a call, which are kept before any key is checked.
_MAX_HEAD_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """One client's connection."""

    _header_timer: asyncio.TimerHandle | None = None
    _takes_over: bool = False
    # Of this call's address and headers, those behind a body included.
    _num_head_bytes: int = 0
    # Since the parser last told of something: it keeps an unfinished header to itself.
    _num_silent_bytes: int = 0
    _refusal: Refusal | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a call, but not for ever."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait."""
        self._cancel_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._unset_keepalive_if_required()
        self._num_silent_bytes += len(data)
        try:
            while data:
                data = self._parsed(data)
        except httptools.HttpParserError as error:
            self._end_with(self._refusal or Refusal(f"this is no HTTP/1.1 request: {error}"))
            return
        if self._num_silent_bytes > _MAX_HEAD_BYTES:
            self._end_with(_too_long())
        elif self._is_idle and self._header_timer is None:
            self._await_headers()  # what came is not yet the beginning of a call

    def on_message_begin(self) -> None:
        """Wait for the rest of the headers."""
        self._num_silent_bytes = 0
        if not self._takes_over:
            super().on_message_begin()
            self._num_head_bytes = 0
            self._await_headers()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        if not self._takes_over:
            self._count(len(url))
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if not self._takes_over:
            self._count(len(name) + len(value) + len(": \r\n"))
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the call."""
        if not self._takes_over:
            self._cancel_header_timer()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._num_silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a call."""
        self._num_silent_bytes = 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """Close, after the answer in progress if there is one."""
        if self._is_idle and self.transport.get_write_buffer_size() == 0:
            # TLS would wait for the client to say goodbye, and an idle client does not listen.
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close the connection: nobody knows where the next begins."""
        self._end_with(Refusal(msg))

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _count(self, num_bytes: int) -> None:
        """Count bytes of the head; an exception ends the parser's work."""
        self._num_head_bytes += num_bytes
        if self._num_head_bytes > _MAX_HEAD_BYTES:
            self._refusal = _too_long()
            raise self._refusal

    def _end_with(self, refusal: Refusal) -> None:
        """Answer a call that has no end, and close the connection."""
        self.logger.warning(refusal.message)
        body = refusal.json()
        head = (
            f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _parsed(self, data: bytes) -> bytes:
        """Parse, and return what comes behind a wish to upgrade.

        With such a wish the parser takes the end of the headers for the end of HTTP, and its work
        for done. Clients, though, send their bodies and read an answer when they are not granted
        it. So another parser takes over there: it is told how long the body is, and no more.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            framing = [
                b"%b: %b\r\n" % header
                for header in self.headers
                if header[0] in (b"content-length", b"transfer-encoding")
            ]
            self.parser = httptools.HttpRequestParser(self)
            if framing:
                self.cycle.more_body = True
                self._takes_over = True
                self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
                self._takes_over = False
            return data[wish.args[0] :]
        return b""

    def _await_headers(self) -> None:
        self._cancel_header_timer()
        loop: Any = self.loop
        self._header_timer = loop.call_later(_HEADER_TIMEOUT_S, self.timeout_keep_alive_handler)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def _too_long() -> Refusal:
    return Refusal(
        f"the address and the headers are longer than {_MAX_HEAD_BYTES} bytes: send less",
        status=431,
        code="request_headers_too_large",
    )
