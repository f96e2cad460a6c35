"""The requests that have not ended, one by one and as a step has them side by side."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.record.layout import SOURCE_CODES
from toolkit.record.rows import request_row
from toolkit.request import Request

__all__ = ["Batch", "LiveRequest"]


class LiveRequest:
    """A request that has not ended, and what its row and its tokens need beside it."""

    __slots__ = ("added_step", "num_prompt", "request", "sent_s")

    def __init__(self, request: Request, added_step: int) -> None:
        self.request = request
        self.added_step = added_step
        self.num_prompt = request.num_prompt_tokens
        self.sent_s: array[float] = array("d")  # of each token

    def row(self, origin_s: float, *, ended_step: int = -1) -> tuple[Any, ...]:
        """Return its row as it is now."""
        return request_row(
            self.request,
            origin_s,
            sent_s=self.sent_s,
            added_step=self.added_step,
            ended_step=ended_step,
        )


class Batch:
    """The requests of one step's chunks or new tokens, in their order.

    Mostly the next step has the same ones. So what follows from who they are is made once, and
    a step is written down without looking at each of its requests.
    """

    __slots__ = (
        "_params",
        "_sources",
        "is_known",
        "max_prompt",
        "names",
        "num_prompts",
        "requests",
        "sent_s",
    )

    def __init__(self, names: tuple[str, ...], live: Mapping[str, LiveRequest]) -> None:
        found = [live.get(name) for name in names]
        self.names = names
        self.num_prompts = [0 if one is None else one.num_prompt for one in found]
        self.max_prompt = max(self.num_prompts, default=0)
        self.is_known = None not in found
        self.requests = [one.request for one in found if one is not None]
        self.sent_s = [one.sent_s for one in found if one is not None]
        self._params: list[Any] = []
        self._sources: array[int] = array("b")

    def num_prompt_tokens(self, starts: Sequence[int], ends: Sequence[int]) -> int:
        """Return how many of the tokens [start, end) of each belong to prompts."""
        if not starts or min(starts) >= self.max_prompt:
            return 0
        return sum(
            [
                min(end, known) - start
                for start, end, known in zip(starts, ends, self.num_prompts, strict=True)
                if start < known
            ]
        )

    def sources(self, special: Sequence[str | None]) -> array[int]:
        """Return the codes of where tokens are from; None: as the parameters say."""
        params = [request.params for request in self.requests]
        if params != self._params:  # which may change while a request runs
            self._params = params
            self._sources = array(
                "b", [SOURCE_CODES["greedy" if own.is_greedy else "sampled"] for own in params]
            )
        if special.count(None) == len(special):
            return self._sources
        return array(
            "b",
            [
                usual if source is None else SOURCE_CODES[source]
                for source, usual in zip(special, self._sources, strict=True)
            ],
        )
