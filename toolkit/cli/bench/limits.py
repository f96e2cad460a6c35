"""Measure what this machine can do at best: reading memory, and multiplying matrices.

Every speed is judged against these two, measured here and now, not against a data sheet: a shared
machine has less than its processor's, and differently from hour to hour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from toolkit.cli.bench.device_timing import seconds_per_call

__all__ = [
    "MachineLimits",
    "beyond_cache_bytes",
    "gemm_rate",
    "last_level_cache_bytes",
    "measure_limits",
    "read_rate",
]

_CPU = torch.device("cpu")
_MIN_BUFFER = 256 << 20
_MAX_BUFFER = 1 << 30
_ROW = 4096  # numbers in a row of the buffer: long enough for a reader to reach full speed
# Products of these sizes reach the peak of small and of large machines alike.
_GEMM_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
_CUDA_BUFFER = 4 << 30  # far past the second-level cache: 50 MB on an H100


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """The limits of a device, the CPU's with ``num_threads`` threads; rates per second.

    >>> limits = MachineLimits(num_threads=2, dtype="bfloat16", read=20e9, gemm=400e9)
    >>> limits.least_s(num_bytes=1e9, flops=1e9)
    0.05
    """

    num_threads: int
    dtype: str
    read: float  # bytes read from memory
    gemm: float  # floating-point operations of a matrix product in dtype

    def least_s(self, *, num_bytes: float, flops: float) -> float:
        """Return the least time for some work: reading and arithmetic may overlap entirely."""
        return max(num_bytes / self.read, flops / self.gemm)


def measure_limits(dtype: torch.dtype, device: torch.device = _CPU) -> MachineLimits:
    """Measure both limits with torch's threads: some seconds, and some memory for a moment.

    That is up to 1 GiB on a CPU, and 4 GiB on another device.
    """
    return MachineLimits(
        num_threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        read=read_rate(device=device),
        gemm=gemm_rate(dtype, device=device),
    )


def read_rate(num_bytes: int | None = None, *, device: torch.device = _CPU) -> float:
    """Return bytes/s at which a device reads a buffer: of the quickest of four readers.

    The buffer is larger than any cache where no size is given. Which reader is the quickest depends
    on the processor, so the limit is the best of a sum, a sum by rows, a dot product and a
    matrix-vector product.
    """
    size = num_bytes or (_CUDA_BUFFER if device.type == "cuda" else beyond_cache_bytes())
    # Ones: zeros may share one page.
    rows = torch.ones(max(size // (4 * _ROW), 1), _ROW, device=device)
    flat = rows.view(-1)
    half = flat.numel() // 2
    readers: tuple[Callable[[], object], ...] = (
        flat.sum,
        lambda: rows.sum(1),
        lambda: torch.dot(flat[:half], flat[half : 2 * half]),
        lambda: torch.mv(rows, rows[0]),
    )
    return rows.numel() * 4 / min(seconds_per_call([reader], device) for reader in readers)


def gemm_rate(
    dtype: torch.dtype, sizes: tuple[int, ...] | None = None, *, device: torch.device = _CPU
) -> float:
    """Return operations/s of the quickest square matrix product, 2 n^3 for size n."""
    rates = []
    for size in sizes or _GEMM_SIZES[device.type]:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = seconds_per_call([lambda a=a, b=b: a @ b.T], device)  # type: ignore[misc]
        rates.append(2 * size**3 / seconds)
    return max(rates)


def beyond_cache_bytes() -> int:
    """Return how much to read so that it comes from memory: two caches, 256 MiB to 1 GiB."""
    return min(max(2 * last_level_cache_bytes(), _MIN_BUFFER), _MAX_BUFFER)


def last_level_cache_bytes() -> int:
    """Return the size of the largest cache of the first core; 0 where the system does not tell."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes)
