"""Routers: which replica of a fleet serves a request.

A router is called with ``(arrival, replicas)`` when a request arrives and returns the index of one.
What it may look at is `Replica`: how many requests each has not finished, and how many of this
one's tokens are in its cache.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from operator import index

from toolkit.errors import InvalidConfig
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.timeline import Replica

__all__ = [
    "ROUTERS",
    "LeastLoaded",
    "PrefixAware",
    "RandomChoice",
    "Router",
    "choose",
    "resolve_router",
    "router_name",
]

Router = Callable[[Arrival, Sequence[Replica]], int]


class RandomChoice:
    """Any replica, each as likely: what needs to know nothing.

    Args:
        seed: Of the choices.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def __call__(self, arrival: Arrival, replicas: Sequence[Replica]) -> int:
        """Return a random index."""
        return self._random.randrange(len(replicas))


class LeastLoaded:
    """The replica with the fewest unfinished requests, of several the first: join the shortest.

    It knows how many there are, not how long.
    """

    def __call__(self, arrival: Arrival, replicas: Sequence[Replica]) -> int:
        """Return the index of the shortest line."""
        return min(range(len(replicas)), key=lambda at: replicas[at].num_unfinished)


class PrefixAware:
    """The replica that has most of the prompt cached, as long as no line is far longer than others.

    The rule of the router of SGLang (v0.4, 2024), which guesses what is cached from what it sent
    where; here it is looked up. Where lines differ by more than ``max_gap`` requests and by more
    than ``max_ratio`` times, or no replica has ``min_share`` of the prompt, the shortest line.

    Args:
        min_share: Part of the prompt that must be cached to count.
        max_gap: Requests by which the longest line may exceed the shortest.
        max_ratio: Times by which it may.
    """

    def __init__(
        self, *, min_share: float = 0.5, max_gap: int = 32, max_ratio: float = 1.0001
    ) -> None:
        if not 0 <= min_share <= 1:
            raise InvalidConfig(f"min_share must be from 0 to 1, not {min_share!r}")
        self.min_share = min_share
        self.max_gap = max_gap
        self.max_ratio = max_ratio
        self._shortest = LeastLoaded()

    def __call__(self, arrival: Arrival, replicas: Sequence[Replica]) -> int:
        """Return the index of the best match, or of the shortest line."""
        lengths = [replica.num_unfinished for replica in replicas]
        gap = max(lengths) - min(lengths)
        if gap > self.max_gap and max(lengths) > self.max_ratio * min(lengths):
            return self._shortest(arrival, replicas)
        cached = [replica.cached_tokens(arrival) for replica in replicas]
        best = max(range(len(replicas)), key=lambda at: (cached[at], -lengths[at]))
        if cached[best] == 0 or cached[best] < self.min_share * arrival.num_prompt_tokens:
            return self._shortest(arrival, replicas)
        return best


ROUTERS: dict[str, Callable[[int], Router]] = {
    "random": RandomChoice,
    "least-loaded": lambda seed: LeastLoaded(),
    "prefix-aware": lambda seed: PrefixAware(),
}


def resolve_router(router: str | Router, seed: int) -> Router:
    """Return a fresh router by name, or the one given.

    Raises:
        InvalidConfig: neither a known name nor callable.
    """
    if isinstance(router, str) and router in ROUTERS:
        return ROUTERS[router](seed)
    if callable(router):
        return router
    raise InvalidConfig(
        f"router={router!r} is not one of {', '.join(ROUTERS)}; a function "
        "(arrival, replicas) -> index is one too"
    )


def router_name(router: str | Router) -> str:
    """Return what tables and plots call a router."""
    return router if isinstance(router, str) else getattr(router, "__name__", repr(router))


def choose(router: Router, arrival: Arrival, replicas: Sequence[Replica]) -> Replica:
    """Return the replica that a router names.

    Raises:
        InvalidConfig: it names none.
    """
    answer = router(arrival, replicas)
    try:
        at = index(answer)
    except TypeError:
        at = -1
    if not 0 <= at < len(replicas):
        raise InvalidConfig(
            f"router {router_name(router)} returned {answer!r} for arrival {arrival.arrival_id}: "
            f"it must name one of the replicas 0 to {len(replicas) - 1}"
        )
    return replicas[at]
