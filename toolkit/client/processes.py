"""Client processes, seen from the process that measures: start them, feed them, gather answers.

They are processes of their own because a client that shares an interpreter with the server, as in a
notebook, waits for the lock that the server holds. Bodies are made here, while clients send.
"""

from __future__ import annotations

import math
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from toolkit.client.exchange import Answer
from toolkit.client.load import Item, Watch
from toolkit.client.target import Target
from toolkit.errors import ToolkitError

__all__ = ["Outcome", "ask"]

# Bodies that are made ahead of being sent.
_AHEAD_BYTES = 256 << 20
_BATCH_BYTES = 1 << 20
_BEGIN_S = 0.05  # from the order to start until the load begins
_LOOK_S = 0.2
_PATIENCE_S = 10.0


@dataclass(slots=True)
class Outcome:
    """What came of a load, and what the client processes saw of themselves."""

    answers: list[Answer] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    origin_s: float = 0.0  # of the answers' times, on time.perf_counter
    is_interrupted: bool = False


def ask(
    target: Target,
    items: Iterator[Item],
    *,
    num_processes: int = 1,
    max_in_flight: int | None = None,
    timeout_s: float = 600.0,
    progressed: Callable[[int], None] = lambda num_answers: None,
) -> Outcome:
    """Send every item when it is due, from ``num_processes`` processes; return what came back.

    An interrupt ends the load early; what was under way comes back as aborted.

    Args:
        target: The server.
        items: In the order of their ids; one that follows another comes after it.
        num_processes: A chain of requests stays in one process.
        max_in_flight: How many may be under way at once, over all processes.
        timeout_s: A request that takes longer has failed.
        progressed: Is called with the number of answers that came since the last call.

    Raises:
        ToolkitError: a client process ended early.
    """
    changed = threading.Event()
    with ExitStack() as stack:
        children = [
            stack.enter_context(_Child(changed, target, timeout_s=timeout_s, max_in_flight=limit))
            for limit in _limits(max_in_flight, num_processes)
        ]
        feed = _Feed(children, items)
        feed.send_more()
        return _gather(children, feed, changed, progressed)


def _limits(max_in_flight: int | None, num_processes: int) -> list[int | None]:
    """Return each process's share of the limit; there are no more processes than it has places."""
    if max_in_flight is None:
        return [None] * num_processes
    num_processes = min(num_processes, max_in_flight)
    whole, rest = divmod(max_in_flight, num_processes)
    return [whole + (number < rest) for number in range(num_processes)]


def _gather(
    children: list[_Child],
    feed: _Feed,
    changed: threading.Event,
    progressed: Callable[[int], None],
) -> Outcome:
    outcome = Outcome()
    num_told = 0
    deadline_s = math.inf
    for child in children:
        child.order("ready")  # behind the first items
    while any(child.watch is None for child in children):
        try:
            if outcome.is_interrupted and deadline_s == math.inf:
                deadline_s = time.perf_counter() + _PATIENCE_S
                for child in children:
                    child.order("stop")
            elif not outcome.origin_s and all(child.is_ready for child in children):
                outcome.origin_s = time.perf_counter() + _BEGIN_S
                for child in children:
                    child.order("start", outcome.origin_s)
            changed.wait(_LOOK_S)
            changed.clear()
            if not outcome.is_interrupted:
                feed.send_more()
            for child in children:
                child.require_alive()
            num_answers = sum(len(child.answers) for child in children)
            progressed(num_answers - num_told)
            num_told = num_answers
            if time.perf_counter() > deadline_s:
                raise ToolkitError("a client process does not stop")
        except KeyboardInterrupt:
            if outcome.is_interrupted:
                raise
            outcome.is_interrupted = True
    outcome.answers = [answer for child in children for answer in child.answers]
    outcome.watches = [child.watch for child in children if child.watch is not None]
    progressed(len(outcome.answers) - num_told)
    return outcome


class _Feed:
    """Gives items to the processes, so many bytes ahead of their being sent."""

    def __init__(self, children: list[_Child], items: Iterator[Item]) -> None:
        self._children = children
        self._items = items
        self._owners: list[_Child] = []  # by arrival_id
        self._is_over = False

    def send_more(self) -> None:
        """Give as many as may be given now."""
        while not self._is_over and self._num_ahead < _AHEAD_BYTES:
            num_bytes, batches = 0, {child: list[Item]() for child in self._children}
            for item in self._items:
                batches[self._owner(item)].append(item)
                num_bytes += len(item.body)
                if num_bytes >= _BATCH_BYTES:
                    break
            else:
                self._is_over = True
            for child, batch in batches.items():
                child.give(batch)
            if self._is_over:
                for child in self._children:
                    child.order("all")

    @property
    def _num_ahead(self) -> int:
        return sum(child.num_given_bytes - child.num_sent_bytes for child in self._children)

    def _owner(self, item: Item) -> _Child:
        """Return who sends an item: who sends the one that it follows, else each in turn."""
        number = len(self._owners)
        owner = (
            self._owners[item.after]
            if item.after >= 0
            else self._children[number % len(self._children)]
        )
        self._owners.append(owner)
        return owner


class _Child:
    """One client process; a context manager that ends it."""

    def __init__(
        self,
        changed: threading.Event,
        target: Target,
        *,
        timeout_s: float,
        max_in_flight: int | None,
    ) -> None:
        self.answers: list[Answer] = []
        self.watch: Watch | None = None  # once its load is over
        self.is_ready = False
        self.num_given_bytes = 0
        self.num_sent_bytes = 0
        self._changed = changed
        self._is_gone = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "toolkit.client.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # an interrupt is for us; we tell it
        )
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._orders.put(
            {"target": asdict(target), "timeout_s": timeout_s, "max_in_flight": max_in_flight}
        )
        # Threads, which no interrupt reaches: a message that is cut in two cannot be read.
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def give(self, items: list[Item]) -> None:
        """Hand items over."""
        if items:
            self.num_given_bytes += sum(len(item.body) for item in items)
            self.order("items", items)

    def order(self, *order: Any) -> None:
        """Tell it something; see `child`."""
        self._orders.put(order)

    def require_alive(self) -> None:
        """Raise ToolkitError if it ended before its load did."""
        if self._is_gone and self.watch is None:
            code = self._process.wait()
            self._log.seek(0)
            told = self._log.read().decode(errors="replace").strip()[-2000:]
            raise ToolkitError(f"a client process ended with code {code}: {told}")

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.put(None)
        try:
            self._process.wait(timeout=0.0 if self.watch is None else _PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()
        self._log.close()

    def _write(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:  # OSError: it is gone
            while (order := self._orders.get()) is not None:
                pickle.dump(order, pipe, protocol=pickle.HIGHEST_PROTOCOL)
                pipe.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            while True:
                try:
                    kind, *values = pickle.load(pipe)
                except (EOFError, OSError, pickle.UnpicklingError):
                    break
                if kind == "end":
                    (self.watch,) = values
                elif kind == "ready":
                    self.is_ready = True
                else:
                    answers, self.num_sent_bytes = values
                    self.answers += answers
                self._changed.set()
        self._is_gone = True
        self._changed.set()
