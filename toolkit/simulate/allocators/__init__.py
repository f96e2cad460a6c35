"""How KV memory is given to requests: in pages, or in one piece as it was before.

One interface, that of `toolkit.cache.blocks.PagedCache`, so scheduler and engine are the same
whichever is below them.
"""

from __future__ import annotations

from collections.abc import Callable

from toolkit.cache.blocks import PagedCache
from toolkit.clock import Clock
from toolkit.config import CacheConfig
from toolkit.errors import InvalidConfig
from toolkit.simulate.allocators.buddy import Buddy, BuddyPool, region_size
from toolkit.simulate.allocators.contiguous import (
    RESERVATIONS,
    ContiguousCache,
    num_slots_needed,
)
from toolkit.simulate.allocators.memory import MemoryMeter, MemoryUse, memory_use

__all__ = [
    "ALLOCATORS",
    "Buddy",
    "BuddyPool",
    "ContiguousCache",
    "MemoryMeter",
    "MemoryUse",
    "make_cache",
    "memory_use",
    "num_slots_needed",
    "region_size",
]

ALLOCATORS = ("paged", *(f"orca-{reserve}" for reserve in RESERVATIONS))


def make_cache(
    allocator: str | Callable[..., PagedCache],
    config: CacheConfig,
    *,
    max_model_len: int,
    clock: Clock | None = None,
) -> PagedCache:
    """Return the cache that an engine is to have: ``Engine(..., cache=make_cache(...))``.

    Args:
        allocator: "paged", "orca-max", "orca-pow2" or "orca-oracle", or whatever makes a cache
            when called with ``(config, clock=clock)``.
        config: How large it is.
        max_model_len: The longest request; what "orca-max" reserves.
        clock: When blocks are used; the engine sets its own.

    Raises:
        InvalidConfig: an unknown name, or no region could hold ``max_model_len`` tokens.

    >>> config = CacheConfig(num_blocks=983)
    >>> make_cache("orca-oracle", config, max_model_len=2048)
    ContiguousCache(15728 slots, reserve='oracle': 0 in 0 regions, 15728 free)
    """
    if callable(allocator):
        return allocator(config, clock=clock)
    if allocator == "paged":
        return PagedCache(config, clock=clock)
    if allocator in ALLOCATORS:
        reserve = allocator.removeprefix("orca-")
        return ContiguousCache(config, reserve=reserve, max_model_len=max_model_len, clock=clock)
    raise InvalidConfig(
        f"allocator={allocator!r} is not one of {', '.join(ALLOCATORS)}; "
        "a function (CacheConfig, *, clock) -> cache is one too"
    )
