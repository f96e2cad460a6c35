"""Connections to one server: as many as there are requests under way, each used again after."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from toolkit.client.exchange import Exchange
from toolkit.client.target import Target

__all__ = ["Connections"]


class Connections:
    """Sends requests and hands what comes back to their exchanges; there is no limit to how many.

    Args:
        target: The server.
        ended: Is called with each exchange when it is over.
        timeout_s: A request that takes longer has failed.
    """

    def __init__(
        self, target: Target, ended: Callable[[Exchange], None], *, timeout_s: float
    ) -> None:
        self.ended = ended
        self.timeout_s = timeout_s
        self.idle: dict[Connection, None] = {}  # in the order in which they came free
        self.open: set[Connection] = set()
        self._target = target
        self._head = target.head
        self._tls = target.tls()
        self._addresses = [target.host]
        self._opening: set[asyncio.Task[None]] = set()

    async def resolve(self) -> None:
        """Look up the server's addresses, once for all connections."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # each request will say so
            found = await loop.getaddrinfo(
                self._target.host, self._target.port, type=socket.SOCK_STREAM
            )
            self._addresses = list(dict.fromkeys(str(address[4][0]) for address in found))

    def send(self, exchange: Exchange, body: bytes) -> None:
        """Send a request, on the connection that came free last if there is one."""
        request = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        if self.idle:
            connection, _ = self.idle.popitem()
            connection.ask(exchange, request)
        else:
            self.send_on_new(exchange, request)

    def send_on_new(self, exchange: Exchange, request: bytes) -> None:
        """Send a request on a connection of its own."""
        task = asyncio.ensure_future(self._connect_and_send(exchange, request))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def close(self) -> None:
        """Break everything off; exchanges that are under way are not reported."""
        for task in list(self._opening):
            task.cancel()
        for connection in list(self.open):
            connection.abandon()

    async def _connect_and_send(self, exchange: Exchange, request: bytes) -> None:
        try:
            connection = await asyncio.wait_for(self._connect(), self.timeout_s)
        except (OSError, asyncio.TimeoutError) as error:
            exchange.fail(f"cannot connect: {error or 'timeout'}", time.perf_counter())
            self.ended(exchange)
        else:
            connection.ask(exchange, request)

    async def _connect(self) -> Connection:
        """Open a connection to the first address that answers; "localhost" has two."""
        *others, last = self._addresses
        for address in others:
            with suppress(OSError):
                connection = await self._connect_to(address)
                self._addresses = [address]
                return connection
        return await self._connect_to(last)

    async def _connect_to(self, address: str) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self),
            address,
            self._target.port,
            ssl=self._tls,
            server_hostname=self._target.host if self._tls else None,
        )
        return connection


class Connection(asyncio.Protocol):
    """One socket: a request at a time, and its bytes stamped when they come."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._request = b""
        self._num_requests = 0
        self._deadline: asyncio.TimerHandle | None = None

    def ask(self, exchange: Exchange, request: bytes) -> None:
        """Send a request."""
        self._num_requests += 1
        self._exchange, self._request = exchange, request
        self._deadline = asyncio.get_running_loop().call_later(
            self._connections.timeout_s, self._expire
        )
        self._transport.write(request)

    def abandon(self) -> None:
        """Close without another word."""
        self._leave()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio calls this first."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.open.add(self)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; asyncio calls this."""
        now_s = time.perf_counter()
        exchange = self._exchange
        if exchange is None:
            return
        was_over = exchange.is_over
        exchange.received(data, now_s)
        if not exchange.is_over:
            return
        if exchange.response.is_done:
            self._leave()
            if exchange.response.keeps_alive:
                self._connections.idle[self] = None
            else:
                self._transport.close()
        elif exchange.answer.status == "failed":
            self.abandon()
        if not was_over:
            self._connections.ended(exchange)

    def connection_lost(self, error: Exception | None) -> None:
        """Report what was under way; asyncio calls this last."""
        exchange = self._leave()
        self._connections.open.discard(self)
        self._connections.idle.pop(self, None)
        if exchange is None or exchange.is_over:
            return
        # The server closed an idle connection while the request was on its way: ask once more.
        if self._num_requests > 1 and not exchange.has_begun:
            self._connections.send_on_new(exchange, self._request)
            return
        exchange.lost(time.perf_counter())
        self._connections.ended(exchange)

    def _expire(self) -> None:
        exchange = self._leave()
        self._transport.abort()
        if exchange is not None and not exchange.is_over:
            exchange.fail(f"no end after {self._connections.timeout_s:g} s", time.perf_counter())
            self._connections.ended(exchange)

    def _leave(self) -> Exchange | None:
        """Let go of the exchange and return it."""
        exchange, self._exchange = self._exchange, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return exchange
