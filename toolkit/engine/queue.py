"""The waiting line: a heap when ranks never change, sorted each step when they do."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from toolkit.engine.policy import Policy, SchedulerView
from toolkit.request import Request

__all__ = ["WaitingQueue"]

Entry = tuple[
    Any, int, Request
]  # rank, arrival, request; arrivals differ, so requests never compare


class WaitingQueue:
    """Requests that do not run, in the order a policy gives them.

    Removal is lazy: an entry whose request is gone is skipped when it surfaces, so 100,000 waiting
    requests cost O(log n) per change.
    """

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._members: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and request.id in self._members

    def __iter__(self) -> Iterator[Request]:
        """Iterate in rank order, over a copy."""
        members = self._members
        return iter([entry[2] for entry in sorted(self._heap) if entry[2].id in members])

    def first(self, count: int) -> list[Request]:
        """Return that many from the front, in rank order, without sorting all."""
        found: dict[str, Request] = {}
        frontier = [(entry, 0) for entry in self._heap[:1]]
        while frontier and len(found) < count:
            entry, place = heapq.heappop(frontier)
            if entry[2].id in self._members:
                found[entry[2].id] = entry[2]
            for child in range(2 * place + 1, min(2 * place + 3, len(self._heap))):
                heapq.heappush(frontier, (self._heap[child], child))
        return [*found.values()]

    def push(self, request: Request, policy: Policy, view: SchedulerView) -> None:
        """Add a request at its rank."""
        self._members[request.id] = request
        entry = (policy.rank(request, view), request.arrival_index, request)
        heapq.heappush(self._heap, entry)

    def peek(self) -> Request | None:
        """Return the first request without taking it."""
        entry = self.pop()
        if entry is None:
            return None
        self.push_back(entry)
        return entry[2]

    def push_back(self, entry: Entry) -> None:
        """Put an entry that ``pop`` gave back where it was."""
        self._members[entry[2].id] = entry[2]
        heapq.heappush(self._heap, entry)

    def pop(self) -> Entry | None:
        """Take the first entry, or return None when nobody waits."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if self._members.pop(entry[2].id, None) is not None:
                return entry
        return None

    def remove(self, request: Request) -> None:
        """Take a request out, wherever it stands; rebuilds once half the entries are stale."""
        if self._members.pop(request.id, None) is not None and len(self._heap) > 2 * len(self) + 64:
            self._heap = [entry for entry in self._heap if entry[2].id in self._members]
            heapq.heapify(self._heap)

    def rerank(self, policy: Policy, view: SchedulerView) -> None:
        """Rank everybody afresh: each step for a policy that is not static, or after a change."""
        requests = list(self._members.values())
        self._heap = [(policy.rank(r, view), r.arrival_index, r) for r in requests]
        heapq.heapify(self._heap)
