"""KV memory as it was before paging: each request gets one region, reserved when it starts.

The three ways to choose its size are those that section 6.1 of Kwon et al. 2023 (PagedAttention)
gives Orca (Yu et al., OSDI 2022), whose own allocator was not published:

    max       the longest request that the model allows
    pow2      the prompt, and an output of at most twice the true length: the next power of two
    oracle    the true length, known beforehand; nobody can build it

A request fits when it starts, or waits: it never grows, is never preempted, and shares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from toolkit.cache.blocks import Fork, PagedCache, PrefixMatch
from toolkit.cache.blocks.paged import BlockTable
from toolkit.clock import Clock
from toolkit.config import CacheConfig
from toolkit.errors import EngineError, InvalidConfig
from toolkit.request import Request
from toolkit.simulate.allocators.buddy import BuddyPool, region_size

__all__ = ["RESERVATIONS", "ContiguousCache", "Reserve", "num_slots_needed"]

Reserve = Callable[[Request, int], int]  # request, max_model_len -> slots

RESERVATIONS: dict[str, Reserve] = {
    "max": lambda request, max_model_len: max_model_len,
    "pow2": lambda request, max_model_len: (
        request.num_prompt_tokens + region_size(request.max_tokens)
    ),
    "oracle": lambda request, max_model_len: num_slots_needed(request),
}


def num_slots_needed(request: Request) -> int:
    """Return how many slots a request writes if it makes all of its ``max_tokens``.

    The last token is sampled but never computed, so its keys and values are never stored.
    """
    return request.num_prompt_tokens + max(request.max_tokens - 1, 0)


class ContiguousCache(PagedCache):
    """A cache that reserves a region per request, with the interface of the paged one.

    Its unit is the slot: the configured blocks, cut into blocks of one token each.

    Args:
        config: How large it is; the block size only says how many slots there are.
        reserve: "max", "pow2" or "oracle", or a function ``(request, max_model_len) -> slots``.
            What it answers is raised to what the request may need, and cut at ``max_model_len``.
        max_model_len: The longest request.
        clock: Not read; taken because every cache is made alike.

    Raises:
        InvalidConfig: an unknown ``reserve``, or no region could hold ``max_model_len`` tokens.

    >>> config = CacheConfig(num_blocks=983, block_size=16)  # OPT-13B on an A100-40GB
    >>> ContiguousCache(config, reserve="max", max_model_len=2048)
    ContiguousCache(15728 slots, reserve='max': 0 in 0 regions, 15728 free)
    """

    pool: BuddyPool

    def __init__(
        self,
        config: CacheConfig,
        *,
        reserve: str | Reserve,
        max_model_len: int,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(reserve, str):
            if reserve not in RESERVATIONS:
                raise InvalidConfig(
                    f"reserve={reserve!r} is not one of {', '.join(RESERVATIONS)}; "
                    "a function (request, max_model_len) -> slots is one too"
                )
            self.reserve_name, self._reserve = reserve, RESERVATIONS[reserve]
        else:
            self.reserve_name = getattr(reserve, "__name__", repr(reserve))
            self._reserve = reserve
        slots = replace(
            config, num_blocks=config.num_slots, block_size=1, enable_prefix_caching=False
        )
        super().__init__(slots, clock=clock)
        self.pool = BuddyPool(slots.num_blocks, clock=clock)
        self.max_model_len = max_model_len
        if not self.pool.can_take(max_model_len):
            raise InvalidConfig(
                f"no region of {slots.num_blocks} slots can hold max_model_len={max_model_len} "
                f"tokens: it would take {region_size(max_model_len)} in one piece; lower "
                "max_model_len or raise num_kv_blocks"
            )

    def num_reserved(self, request: Request) -> int:
        """Return how many slots a request is given, before they are rounded to a region."""
        wanted = max(self._reserve(request, self.max_model_len), num_slots_needed(request))
        return min(wanted, self.max_model_len)

    def can_hold(self, request: Request, match: PrefixMatch) -> bool:
        """Whether a region is free for all that the request may come to."""
        return self.pool.can_take(self.num_reserved(request))

    def open(self, request: Request, match: PrefixMatch) -> tuple[int, ...]:
        """Take the request's region; return its slots."""
        region = self.pool.take(self.num_reserved(request), request.id)
        self._tables[request.id] = BlockTable(region)
        return tuple(region)

    def fork(self, source: Request, target: Request, num_tokens: int) -> tuple[int, ...]:
        """Refuse: a region has one owner.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"{target.id} cannot share the region of {source.id}: samples (n > 1) and beams need "
            "the paged cache"
        )

    def fork_all(self, forks: Sequence[Fork]) -> None:
        """Refuse, as ``fork`` does."""
        for source, target, num_tokens in forks:
            self.fork(source, target, num_tokens)

    def __repr__(self) -> str:
        return (
            f"ContiguousCache({self.num_blocks} slots, reserve={self.reserve_name!r}: "
            f"{self.pool.num_used} in {len(self._tables)} regions, {self.pool.num_free} free)"
        )
