"""One process's share of a load: send what is due, note when pieces come, watch its own lateness.

Times are those of ``time.perf_counter``, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from toolkit.client.agenda import Agenda, Due
from toolkit.client.connections import Connections
from toolkit.client.exchange import Answer, Exchange
from toolkit.client.target import Target

__all__ = ["Item", "Load", "Watch", "allow_many_files"]

_HEARTBEAT_S = 0.05


class Item(NamedTuple):
    """A request as it will be sent."""

    arrival_id: int
    due_s: float
    after: int
    body: bytes


class Watch(NamedTuple):
    """What a process saw of itself during the load."""

    loop_lags_s: list[float]
    cpu_share: float


class Load:
    """Asks a server; build it inside a running event loop.

    Args:
        target: The server.
        answered: Is called with each answer.
        timeout_s: A request that takes longer has failed.
        max_in_flight: How many may be under way at once; None for no limit.
    """

    def __init__(
        self,
        target: Target,
        answered: Callable[[Answer], None],
        *,
        timeout_s: float,
        max_in_flight: int | None = None,
    ) -> None:
        self.num_sent_bytes = 0  # of bodies
        self._agenda = Agenda(max_in_flight=max_in_flight)
        self._answered = answered
        self._connections = Connections(target, self._on_end, timeout_s=timeout_s)
        self._bodies: dict[int, bytes] = {}
        self._under_way: dict[int, Exchange] = {}
        self._origin_s: float | None = None  # of the load's times
        self._has_all = False
        self._timer: asyncio.TimerHandle | None = None
        self._done = asyncio.Event()

    def add(self, items: list[Item]) -> None:
        """Take in requests, before or during the load."""
        for item in items:
            self._bodies[item.arrival_id] = item.body
            self._agenda.add(item.arrival_id, due_s=item.due_s, after=item.after)
        self._send_due()

    def add_no_more(self) -> None:
        """Note that all requests are here."""
        self._has_all = True
        self._send_due()

    async def prepare(self) -> None:
        """Do what needs no load: look up the server's address."""
        await self._connections.resolve()

    async def run(self, origin_s: float) -> Watch:
        """Ask from ``origin_s`` on, until all is answered or ``stop`` was called."""
        self._origin_s = origin_s
        lags_s: list[float] = []
        watching = asyncio.ensure_future(_watch(lags_s))
        cpu_s, start_s = time.process_time(), time.perf_counter()
        self._send_due()
        await self._done.wait()
        elapsed_s = time.perf_counter() - start_s
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        self._connections.close()
        share = (time.process_time() - cpu_s) / elapsed_s if elapsed_s > 0 else 0.0
        return Watch(lags_s, share)

    def stop(self) -> None:
        """Break off what is under way, which is answered as aborted, and send no more."""
        self._done.set()
        now_s = time.perf_counter()
        for exchange in self._under_way.values():
            exchange.fail("the load was interrupted", now_s, status="aborted")
            self._report(exchange)
        self._under_way.clear()

    # ---- inside

    def _send_due(self) -> None:
        if self._origin_s is None or self._done.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while due := self._agenda.take(time.perf_counter() - self._origin_s):
            self._send(due, self._origin_s)
        next_s = self._agenda.next_s
        if next_s is not None:
            delay_s = max(0.0, self._origin_s + next_s - time.perf_counter())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._send_due)
        elif self._has_all and self._agenda.is_done:
            self._done.set()

    def _send(self, due: Due, origin_s: float) -> None:
        sent_s = time.perf_counter() - origin_s
        exchange = Exchange(Answer(due.arrival_id, due.scheduled_s, due.free_s, sent_s))
        self._under_way[due.arrival_id] = exchange
        body = self._bodies.pop(due.arrival_id)
        self.num_sent_bytes += len(body)
        self._connections.send(exchange, body)

    def _on_end(self, exchange: Exchange) -> None:
        arrival_id = exchange.answer.arrival_id
        if self._under_way.pop(arrival_id, None) is None or self._origin_s is None:
            return  # the load was stopped
        self._agenda.ended(arrival_id, exchange.answer.finished_s - self._origin_s)
        self._report(exchange)
        self._send_due()

    def _report(self, exchange: Exchange) -> None:
        """Hand an answer over, with all its times from the start of the load."""
        answer, origin_s = exchange.answer, self._origin_s or 0.0
        for index, time_s in enumerate(answer.pieces_s):
            answer.pieces_s[index] = time_s - origin_s
        answer.finished_s -= origin_s
        self._answered(answer)


async def _watch(lags_s: list[float]) -> None:
    """Note how late the event loop comes round to a timer."""
    while True:
        due_s = time.perf_counter() + _HEARTBEAT_S
        await asyncio.sleep(_HEARTBEAT_S)
        lags_s.append(time.perf_counter() - due_s)


def allow_many_files() -> None:
    """Let this process open as many sockets as the system grants it."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
