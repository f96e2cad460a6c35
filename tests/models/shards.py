"""Run the parts of a decoder side by side in threads: what processes do, without processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

from tests.models.paging import CPU, run
from toolkit.kernels import select_ops
from toolkit.models import Decoder, decoder_spec, find_family, read_config
from toolkit.models.sharding import Shard
from toolkit.models.weights import read_decoder

T = TypeVar("T")


class Sums:
    """Adds what each of ``size`` threads gives."""

    def __init__(self, size: int) -> None:
        self._barrier = Barrier(size, timeout=60)
        self._given: list[Tensor | None] = [None] * size

    def of(self, rank: int) -> Callable[[Tensor], Tensor]:
        def add(x: Tensor) -> Tensor:
            self._given[rank] = x
            self._barrier.wait()
            total = torch.stack(self._given).sum(0)
            self._barrier.wait()  # nobody gives the next before all have read these
            return total

        return add


class Part:
    """One shard as ``paging.run`` takes a decoder: with the cache of its own heads."""

    def __init__(self, decoder: Decoder) -> None:
        assert decoder.shard is not None
        self.decoder = decoder
        self.spec = decoder.shard.spec(decoder.spec)
        self.dtype = decoder.dtype
        self.logits = decoder.logits

    def __call__(self, *args: object, **options: object) -> Tensor:
        return self.decoder(*args, **options)


def load_parts(folder: Path, size: int, *, kernels: str = "reference") -> list[Part]:
    """Load all shards of a checkpoint."""
    config = read_config(str(folder))
    sums = Sums(size)
    return [
        Part(
            read_decoder(
                decoder_spec(config),
                find_family(config),
                folder,
                device=CPU,
                ops=select_ops(kernels, CPU),
                dtype=torch.float32,
                shard=Shard(rank, size, sums.of(rank)),
                progress=False,
            )
        )
        for rank in range(size)
    ]


def run_parts(parts: list[Part], prompts: list[list[int]], *, chunk: int) -> list[Tensor]:
    """Return the logits of every position of every prompt, put together from all shards."""
    with ThreadPoolExecutor(len(parts)) as pool:
        computed = list(pool.map(lambda part: run(part, prompts, chunk=chunk), parts))
    vocab_size = parts[0].decoder.spec.vocab_size
    return [torch.cat(pieces, -1)[:, :vocab_size] for pieces in zip(*computed, strict=True)]
