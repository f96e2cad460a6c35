"""Start a model in several processes, or say why it cannot be."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from toolkit.errors import InvalidConfig
from toolkit.models import DecoderSpec, ModelSource, num_parameters, resolve_files
from toolkit.models.families import decoder_spec, find_family
from toolkit.models.sharding import Shard, refuse_indivisible
from toolkit.models.weights import read_decoder
from toolkit.runtime.tensor_parallel.collectives import has_backend
from toolkit.runtime.tensor_parallel.decoder import ShardedDecoder
from toolkit.runtime.tensor_parallel.orders import Begin
from toolkit.runtime.tensor_parallel.shares import share_threads
from toolkit.runtime.tensor_parallel.workers import Workers

__all__ = ["Part", "part_of", "refuse_sharding", "start_sharded"]

# The others may take so much longer to load their parts than this process, and so many times as
# long: beside it they load torch first, and all read from one disk.
_LATE_S = 120.0
_LATE_TIMES = 10


@dataclass(frozen=True, slots=True)
class Part:
    """What one process has of a model."""

    spec: DecoderSpec
    weight_bytes: int


def part_of(source: ModelSource, size: int) -> Part:
    """Return what the first of ``size`` processes has; the others have no more."""
    spec = _own_spec(source, size)
    shard = Shard(0, size, _alone)
    count = num_parameters(spec, source.ops, shard)
    return Part(shard.spec(spec), count * source.dtype.itemsize)


def refuse_sharding(
    size: int, device: torch.device, *, quantization: str | None, batch_invariant: bool
) -> None:
    """Raise InvalidConfig where no model can be in ``size`` processes with these settings."""
    wrong = None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        wrong = "it is a number of processes, 1 or more"
    elif size == 1:
        return
    elif quantization is not None:
        wrong = f"quantised weights are not divided; leave quantization={quantization!r} out"
    elif batch_invariant:
        wrong = "sums over processes depend on the batch; leave batch_invariant=True out"
    elif os.name != "posix":
        wrong = "processes are joined on Linux and macOS only; leave it at 1"
    elif device.type not in ("cpu", "cuda"):
        wrong = f"there is no such thing on {device.type}; leave it at 1"
    elif not has_backend(device):
        library = "NCCL" if device.type == "cuda" else "gloo"
        wrong = f"this build of torch has no {library}; install another, or leave it at 1"
    elif device.type == "cuda" and torch.cuda.device_count() - (device.index or 0) < size:
        wrong = (
            f"torch sees {torch.cuda.device_count()} GPUs, and from {device} on each process "
            "takes one; lower it"
        )
    if wrong is not None:
        raise InvalidConfig(f"tensor_parallel={size!r}: {wrong}")


def start_sharded(
    source: ModelSource, size: int, *, max_model_len: int | None, progress: bool
) -> ShardedDecoder:
    """Load a model in ``size`` processes, of which this is the first; ``close`` ends the others.

    On a CPU the processes share this one's threads until then. A bar says that they are awaited:
    each imports torch and reads weights, which takes seconds.

    Raises:
        InvalidConfig: the model cannot be divided so.
        ModelError: its weights cannot be loaded.
        WorkerFailed: another process ended; its last words are in the message.
    """
    spec = _own_spec(source, size, max_model_len)
    # With miniters=0 no thread of tqdm's own draws it, which in a notebook none may.
    with tqdm(total=size, desc=f"Starting {size} processes", unit="process", miniters=0) as bar:
        decoder = _started(source, size, spec, progress=progress)
        bar.update(size)
    return decoder


def _started(
    source: ModelSource, size: int, spec: DecoderSpec, *, progress: bool
) -> ShardedDecoder:
    family, folder = find_family(source.config), resolve_files(source.model, source.revision)
    devices = [source.device] * size
    share: int | None = None
    with ExitStack() as end:  # in the reverse order
        if source.device.type == "cuda":
            first = source.device.index or 0
            devices = [torch.device("cuda", first + rank) for rank in range(size)]
        else:
            share, release = share_threads(size)
            end.callback(release)
        workers = Workers(size, devices[0])
        end.callback(workers.close)
        started = time.monotonic()
        workers.start(
            [
                Begin(
                    rank=rank,
                    size=size,
                    spec=spec,
                    family=family.name,
                    folder=folder.absolute(),
                    dtype=source.dtype,
                    device=devices[rank],
                    kernels=source.ops.name,
                    num_threads=share,
                )
                for rank in range(1, size)
            ]
        )
        own = read_decoder(
            spec,
            family,
            folder,
            device=devices[0],
            ops=source.ops,
            dtype=source.dtype,
            shard=Shard(0, size, workers.collectives.sum),
            progress=progress,
        )
        patience_s = _LATE_S + _LATE_TIMES * (time.monotonic() - started)
        return ShardedDecoder(own, workers, end, patience_s=patience_s)


def _own_spec(source: ModelSource, size: int, max_model_len: int | None = None) -> DecoderSpec:
    if not isinstance(source.spec, DecoderSpec):
        raise InvalidConfig(
            f"tensor_parallel={size}: {source.spec.family} runs in transformers' own code, which "
            "is not divided; leave it at 1"
        )
    refuse_indivisible(source.spec, size)
    return decoder_spec(source.config, max_model_len)


def _alone(x: Tensor) -> Tensor:
    """Stand for a sum where nothing is computed."""
    return x
