"""Plan the memory of an LLM before any of it is taken."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from toolkit.cache.storage import GIB, KVLayout
from toolkit.errors import InvalidConfig
from toolkit.models import DecoderSpec, TransformersSpec

__all__ = ["MemoryPlan", "plan_memory"]

# Where nobody says how large the cache may be, it stops here: long-context models would otherwise
# ask for hundreds of GiB (Qwen3-0.6B: 64 sequences x 40,960 tokens x 112 KiB = 280 GiB).
DEFAULT_KV_GIB = 4.0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What an LLM takes and why; print it.

    With ``tensor_parallel`` the bytes, and the heads in the layout, are those of each of
    ``num_processes``; the blocks are the same in all of them.
    """

    device: str
    available_bytes: int
    weight_bytes: int
    layout: KVLayout
    num_blocks: int
    max_model_len: int
    max_num_seqs: int
    decided_by: str
    num_processes: int = 1

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache."""
        return self.num_blocks * self.layout.bytes_per_block

    @property
    def num_slots(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_blocks * self.layout.block_size

    def __repr__(self) -> str:
        full = self.num_slots / self.max_model_len
        per_token = self.layout.bytes_per_block / self.layout.block_size / 1024
        dtype = str(self.layout.dtype).removeprefix("torch.")
        each = "" if self.num_processes == 1 else f", each of {self.num_processes} processes"
        return "\n".join(
            (
                f"memory plan on {self.device} ({self.available_bytes / GIB:.1f} GiB free){each}",
                f"  weights    {self.weight_bytes / GIB:8.3f} GiB",
                f"  KV cache   {self.kv_bytes / GIB:8.3f} GiB = {self.num_blocks} blocks x "
                f"{self.layout.block_size} tokens x {per_token:.1f} KiB ({dtype})",
                f"  it holds   {self.num_slots} tokens: {full:.1f} sequences of max_model_len="
                f"{self.max_model_len} at once (max_num_seqs={self.max_num_seqs})",
                f"  decided by {self.decided_by}",
            )
        )


def plan_memory(
    spec: DecoderSpec | TransformersSpec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    block_size: int,
    max_num_seqs: int,
    max_model_len: int | None = None,
    num_kv_blocks: int | None = None,
    kv_cache_memory_gb: float | None = None,
    weight_bytes: int = 0,
    num_processes: int = 1,
) -> MemoryPlan:
    """Size the KV cache from what is asked: blocks, or GiB, or sequences x tokens.

    With several processes, spec and sizes are those of one: what is asked is for each of them.

    Raises:
        InvalidConfig: the settings contradict each other, or the plan exceeds the free memory.
    """
    layout = KVLayout(
        num_layers=spec.kv_shape.num_layers,
        num_kv_heads=spec.kv_shape.num_kv_heads,
        head_dim=spec.kv_shape.head_dim,
        block_size=block_size,
        dtype=dtype,
    )
    _require_sense(num_kv_blocks, kv_cache_memory_gb, max_model_len, spec.max_model_len)
    wanted_len = max_model_len or spec.max_model_len
    per_sequence = -(-wanted_len // block_size)
    if num_kv_blocks is not None:
        num_blocks, decided_by = num_kv_blocks, f"num_kv_blocks={num_kv_blocks}"
    elif kv_cache_memory_gb is not None:
        num_blocks = layout.blocks_in(kv_cache_memory_gb)
        decided_by = f"kv_cache_memory_gb={kv_cache_memory_gb}"
    else:
        num_blocks = max_num_seqs * per_sequence
        decided_by = f"max_num_seqs={max_num_seqs} x max_model_len={wanted_len} tokens"
        limit = layout.blocks_in(DEFAULT_KV_GIB)
        if num_blocks > limit:
            num_blocks = max(limit, per_sequence if max_model_len is not None else 1)
            decided_by += f", cut to the default limit of {DEFAULT_KV_GIB:.0f} GiB"
    if num_blocks < 1:
        raise InvalidConfig(
            f"{decided_by} holds no block of {layout.bytes_per_block} bytes; give more memory"
        )
    if max_model_len is None and per_sequence > num_blocks:
        wanted_len = num_blocks * block_size
        decided_by += f"; max_model_len lowered from {spec.max_model_len} to fit"
    plan = MemoryPlan(
        device=str(device),
        available_bytes=_available_bytes(device, num_processes),
        weight_bytes=weight_bytes,
        layout=layout,
        num_blocks=num_blocks,
        max_model_len=wanted_len,
        max_num_seqs=max_num_seqs,
        decided_by=decided_by,
        num_processes=num_processes,
    )
    if plan.kv_bytes > plan.available_bytes:
        raise InvalidConfig(
            f"not enough memory for the KV cache; lower max_num_seqs or max_model_len, or set "
            f"kv_cache_memory_gb:\n{plan!r}"
        )
    return plan


def _require_sense(
    num_kv_blocks: int | None,
    kv_cache_memory_gb: float | None,
    max_model_len: int | None,
    model_limit: int,
) -> None:
    if num_kv_blocks is not None and kv_cache_memory_gb is not None:
        raise InvalidConfig("give num_kv_blocks or kv_cache_memory_gb, not both")
    if num_kv_blocks is not None and num_kv_blocks < 1:
        raise InvalidConfig(f"num_kv_blocks must be positive, not {num_kv_blocks}")
    if kv_cache_memory_gb is not None and not kv_cache_memory_gb > 0:
        raise InvalidConfig(f"kv_cache_memory_gb must be positive, not {kv_cache_memory_gb}")
    if max_model_len is not None and not 1 < max_model_len <= model_limit:
        raise InvalidConfig(
            f"max_model_len={max_model_len} must be from 2 to the model's own {model_limit}"
        )


def _available_bytes(device: torch.device, num_processes: int) -> int:
    """Return what one process may take: of its GPU's memory all, of the machine's its share."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _free_bytes() // num_processes


def _free_bytes() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
