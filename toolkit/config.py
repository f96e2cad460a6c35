"""Settings of an engine: frozen, validated once, units in the names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolkit.errors import InvalidConfig

__all__ = ["CacheConfig", "EngineConfig", "SchedulerConfig"]


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidConfig(f"{name} must be a positive integer, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """The KV cache as the scheduler counts it: blocks, not bytes.

    >>> CacheConfig(num_blocks=4, block_size=16).num_slots
    64
    """

    num_blocks: int
    block_size: int = 16
    enable_prefix_caching: bool = True

    def __post_init__(self) -> None:
        _require_positive(self, "num_blocks", "block_size")

    @property
    def num_slots(self) -> int:
        """Tokens whose keys and values fit in the cache."""
        return self.num_blocks * self.block_size


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """The limits of one step, and of one request's length.

    ``asynchronous`` lets a plan say what the next step will most likely compute, so that a device
    can start on it before this step's tokens are known (``toolkit.engine.foresight``). It changes
    no token; a request may hold its next block, an empty one, a step earlier.
    """

    max_model_len: int
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    asynchronous: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "max_model_len", "max_num_seqs", "max_num_batched_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything an ``Engine`` needs to know beside its runner.

    ``policy`` is a built-in policy's name, a function ``(request, view) -> sortable`` or an object
    with any of the methods of the policy contract. ``check_every_step`` runs the invariant checks
    of scheduler and cache after each step (slow; on in tests).
    """

    cache: CacheConfig
    scheduler: SchedulerConfig
    policy: Any = "fcfs"
    seed: int = 0
    check_every_step: bool = False

    def __post_init__(self) -> None:
        if self.scheduler.max_model_len > self.cache.num_slots:
            raise InvalidConfig(
                f"max_model_len={self.scheduler.max_model_len} tokens do not fit in a cache of "
                f"{self.cache.num_blocks} blocks x {self.cache.block_size} = "
                f"{self.cache.num_slots} tokens, so one request could wait for ever; "
                "raise num_kv_blocks or lower max_model_len"
            )
