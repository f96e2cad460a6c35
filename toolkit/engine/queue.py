"""The waiting line: a heap when ranks never change, ranked afresh each step when they do."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from toolkit.engine.policy import Policy, SchedulerView
from toolkit.request import Request

__all__ = ["WINDOW", "WaitingQueue"]

Entry = tuple[
    Any, int, Request
]  # rank, arrival, request; arrivals differ, so requests never compare

# How many of a line a step ranks afresh for a policy that is not static: a shorter line as a whole,
# of a longer one half as many from its front and half as many others in turn. The rest keep the
# ranks that they had, in a line of 100,000 for 200 steps at most.
WINDOW = 1_024


class WaitingQueue:
    """Requests that do not run, in the order a policy gives them.

    Removal is lazy: an entry that is no longer its request's own is skipped when it surfaces, so
    100,000 waiting requests cost O(log n) per change.
    """

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._members: dict[str, Entry] = {}
        self._in_turn: list[str] = []  # members whose turn to be ranked is still to come

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and request.id in self._members

    def __iter__(self) -> Iterator[Request]:
        """Iterate in rank order, over a copy."""
        return iter([entry[2] for entry in sorted(self._members.values())])

    def first(self, count: int) -> list[Request]:
        """Return that many from the front, in rank order, without sorting all."""
        found: list[Request] = []
        frontier = [(entry, 0) for entry in self._heap[:1]]
        while frontier and len(found) < count:
            entry, place = heapq.heappop(frontier)
            if self._members.get(entry[2].id) is entry:
                found.append(entry[2])
            for child in range(2 * place + 1, min(2 * place + 3, len(self._heap))):
                heapq.heappush(frontier, (self._heap[child], child))
        return found

    def push(self, request: Request, policy: Policy, view: SchedulerView) -> None:
        """Add a request at its rank."""
        self.push_back((policy.rank(request, view), request.arrival_index, request))

    def peek(self) -> Request | None:
        """Return the first request without taking it."""
        entry = self.pop()
        if entry is None:
            return None
        self.push_back(entry)
        return entry[2]

    def push_back(self, entry: Entry) -> None:
        """Put an entry that ``pop`` gave back where it was."""
        self._members[entry[2].id] = entry
        heapq.heappush(self._heap, entry)

    def pop(self) -> Entry | None:
        """Take the first entry, or return None when nobody waits."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if self._members.get(entry[2].id) is entry:
                del self._members[entry[2].id]
                return entry
        return None

    def remove(self, request: Request) -> None:
        """Take a request out, wherever it stands."""
        if self._members.pop(request.id, None) is not None:
            self._drop_stale()

    def rerank(self, policy: Policy, view: SchedulerView) -> None:
        """Rank everybody afresh."""
        requests = [entry[2] for entry in self._members.values()]
        self._heap = [(policy.rank(r, view), r.arrival_index, r) for r in requests]
        self._members = {entry[2].id: entry for entry in self._heap}
        heapq.heapify(self._heap)

    def refresh(self, policy: Policy, view: SchedulerView) -> None:
        """Rank afresh for a new step: everybody, or a window of a long line (see WINDOW)."""
        if len(self) <= WINDOW:
            self.rerank(policy, view)
            return
        chosen: dict[str, Request] = {}
        while len(chosen) < WINDOW // 2:
            entry = self.pop()
            assert entry is not None
            chosen[entry[2].id] = entry[2]
        while len(chosen) < WINDOW:
            if not self._in_turn:
                self._in_turn = list(reversed(self._members))
            request_id = self._in_turn.pop()
            if request_id in self._members:
                chosen[request_id] = self._members[request_id][2]
        for request in chosen.values():
            self.push(request, policy, view)
        self._drop_stale()

    def _drop_stale(self) -> None:
        """Rebuild the heap once half its entries are nobody's own."""
        if len(self._heap) > 2 * len(self) + 64:
            self._heap = list(self._members.values())
            heapq.heapify(self._heap)
