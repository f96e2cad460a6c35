"""Answers of one server, kept in memory for clients that come back with their ids.

A conversation is a chain: each response holds the items that came new with it, and the response
before it. So a long conversation costs each item once, and goes on though its first responses gave
way to newer ones. Bounded in number and in bytes; the oldest go first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from toolkit.server.responses.items import Item

__all__ = ["ResponseStore", "StoredResponse"]


@dataclass(frozen=True, slots=True, eq=False)
class StoredResponse:
    """A finished response, as JSON: it takes as much memory as it says, and nobody changes it."""

    id: str
    body: bytes
    """The response, as it was sent."""
    new_items: bytes
    """The items of its input that did not come from the response before."""
    previous: StoredResponse | None

    @classmethod
    def of(
        cls,
        response_id: str,
        body: bytes,
        new_items: Sequence[Item],
        previous: StoredResponse | None,
    ) -> StoredResponse:
        """Return a response that continues another one, if ``previous`` is one."""
        return cls(response_id, body, orjson.dumps(new_items), previous)

    @property
    def num_bytes(self) -> int:
        """What this response takes, without those before it."""
        return len(self.body) + len(self.new_items)

    @property
    def output(self) -> list[Item]:
        """The items of the answer."""
        output: list[Item] = orjson.loads(self.body)["output"]
        return output

    @property
    def input(self) -> list[Item]:
        """The items that it answered, those of the responses before included."""
        items: list[Item] = []
        for link in reversed([*_chain(self)]):
            items += orjson.loads(link.new_items)
            items += link.output if link is not self else ()
        return items

    @property
    def conversation(self) -> list[Item]:
        """The items of its input and of its output."""
        return [*self.input, *self.output]


class ResponseStore:
    """The newest responses of a server, by id; any thread may use it.

    Args:
        max_responses: More are not kept.
        max_bytes: Nor more than this, the earlier parts of conversations included.
    """

    def __init__(self, *, max_responses: int, max_bytes: int) -> None:
        self.max_responses = max_responses
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._responses: dict[str, StoredResponse] = {}  # in the order in which they came
        self._homes: dict[str, str] = {}  # by id of an item, the response that it came with
        # How many hold each response: the store itself, and responses that go on from it.
        self._num_holders: dict[StoredResponse, int] = {}
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._responses)

    @property
    def num_bytes(self) -> int:
        """What all responses take, with those that are held by later ones alone."""
        return self._num_bytes

    def get(self, response_id: str) -> StoredResponse | None:
        """Return a response."""
        return self._responses.get(response_id)

    def find_item(self, item_id: str) -> Item | None:
        """Return an item of a stored response's new input or output."""
        with self._lock:
            home = self._responses.get(self._homes.get(item_id, ""))
        if home is None:
            return None
        return next((item for item in _own_items(home) if item.get("id") == item_id), None)

    def put(self, response: StoredResponse) -> None:
        """Keep a response; others may have to go, and if it is too big, so does this one."""
        with self._lock:
            if response.id in self._responses:
                self._remove(response.id)
            self._responses[response.id] = response
            for item in _own_items(response):
                self._homes[item["id"]] = response.id
            self._hold(response)
            while len(self._responses) > self.max_responses or (
                self._responses and self._num_bytes > self._max_bytes
            ):
                self._remove(next(iter(self._responses)))

    def delete(self, response_id: str) -> bool:
        """Forget a response, and say whether it was there; later ones keep what they hold of it."""
        with self._lock:
            is_here = response_id in self._responses
            if is_here:
                self._remove(response_id)
            return is_here

    def check(self) -> None:
        """Raise AssertionError unless the count of bytes is what the responses take."""
        with self._lock:
            held = {link for response in self._responses.values() for link in _chain(response)}
            assert held == self._num_holders.keys(), "a response is held by nobody, or lost"
            assert self._num_bytes == sum(link.num_bytes for link in held)
            assert set(self._homes.values()) <= self._responses.keys()

    def _hold(self, response: StoredResponse) -> None:
        """Count one more holder; a response that is new here holds the one before it."""
        link: StoredResponse | None = response
        while link is not None:
            num_holders = self._num_holders.get(link, 0)
            self._num_holders[link] = num_holders + 1
            if num_holders:
                return
            self._num_bytes += link.num_bytes
            link = link.previous

    def _remove(self, response_id: str) -> None:
        response = self._responses.pop(response_id)
        for item in _own_items(response):
            if self._homes.get(item["id"]) == response_id:
                del self._homes[item["id"]]
        link: StoredResponse | None = response
        while link is not None:
            self._num_holders[link] -= 1
            if self._num_holders[link]:
                return
            del self._num_holders[link]
            self._num_bytes -= link.num_bytes
            link = link.previous


def _chain(response: StoredResponse) -> Iterator[StoredResponse]:
    """Yield a response and those before it, the newest first."""
    link: StoredResponse | None = response
    while link is not None:
        yield link
        link = link.previous


def _own_items(response: StoredResponse) -> Iterator[dict[str, Any]]:
    yield from orjson.loads(response.new_items)
    yield from response.output
