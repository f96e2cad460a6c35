"""One of the other processes of a model; ``command.python_command`` says how it is started.

It holds a part of the weights and of the KV cache, does what the first process tells it, and ends
with it at the latest: standard input is a pipe that the first one holds open, whatever it does, and
on Linux the system kills this process when the other one is gone. An interrupt is not for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import traceback
from functools import singledispatchmethod

import torch
from torch import Tensor

from toolkit.cache.storage import KVStorage
from toolkit.kernels import select_ops
from toolkit.models.families import FAMILIES
from toolkit.models.sharding import DIVIDED_POINTS, Shard
from toolkit.models.weights import read_decoder
from toolkit.runtime.fingerprint import fingerprint
from toolkit.runtime.tensor_parallel.channel import Channel
from toolkit.runtime.tensor_parallel.collectives import Collectives
from toolkit.runtime.tensor_parallel.orders import (
    Begin,
    CopyBlocks,
    DropCaches,
    Forward,
    Join,
    Logits,
    OpenCache,
)

__all__ = ["Worker", "main"]

# prctl(PR_SET_PDEATHSIG): the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1
# The first process may rest for long in the middle of a step, say while a cell holds Python's lock;
# when it ends, this one does.
_PATIENCE_S = 365 * 24 * 3600.0


class Worker:
    """A part of a decoder and what is told to it.

    Args:
        channel: Where orders come from, and answers go.
        begin: The first order.
    """

    def __init__(self, channel: Channel, begin: Begin) -> None:
        if begin.num_threads is not None:
            torch.set_num_threads(begin.num_threads)
        self._channel = channel
        self._device = begin.device
        self._collectives = Collectives(
            begin.rank, begin.size, device=begin.device, patience_s=_PATIENCE_S
        )
        self._decoder = read_decoder(
            begin.spec,
            next(family for family in FAMILIES if family.name == begin.family),
            begin.folder,
            device=begin.device,
            ops=select_ops(begin.kernels, begin.device),
            dtype=begin.dtype,
            shard=Shard(begin.rank, begin.size, self._collectives.sum),
            progress=False,
        )
        self._caches: dict[int, KVStorage] = {}
        self._hidden: Tensor | None = None  # of the last forward pass
        channel.send("loaded")

    def run(self) -> None:
        """Do what is told until the channel ends."""
        with torch.inference_mode():
            while True:
                try:
                    order = self._channel.receive()
                except EOFError:
                    return
                self._do(order)

    @singledispatchmethod
    def _do(self, order: object) -> None:
        raise TypeError(f"{order!r} is no order")

    @_do.register
    def _(self, order: Join) -> None:
        self._collectives.join(order.path)
        self._channel.send(fingerprint(self._decoder))

    @_do.register
    def _(self, order: OpenCache) -> None:
        self._caches[order.key] = KVStorage(order.layout, order.num_blocks, self._device)

    @_do.register
    def _(self, order: DropCaches) -> None:
        for key in order.keys:
            del self._caches[key]

    @_do.register
    def _(self, order: CopyBlocks) -> None:
        self._caches[order.key].copy_blocks(order.source_ids, order.target_ids)

    @_do.register
    def _(self, order: Forward) -> None:
        tap = self._take_over if order.is_shown else None
        rows = None if order.rows is None else torch.from_numpy(order.rows).to(self._device)
        layers = self._caches[order.key].layers
        self._hidden = self._decoder(order.batch(self._device), layers, tap, rows=rows)

    @_do.register
    def _(self, order: Logits) -> None:
        hidden = self._hidden
        if order.num_rows is not None:
            empty = torch.empty(
                order.num_rows, self._decoder.width, dtype=self._decoder.dtype, device=self._device
            )
            hidden = self._collectives.broadcast(empty)
        assert hidden is not None, "there was no forward pass"
        self._collectives.gather(self._decoder.logits(hidden))

    def _take_over(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        """Return what hooks, which run in the first process, made of an activation."""
        return x if point in DIVIDED_POINTS else self._collectives.broadcast(x)


def main() -> None:
    """Work for the process that started this one, to this one's end; the arguments say where."""
    channel_number, parent_id = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent_id)
    threading.Thread(target=_end_with_input, daemon=True).start()
    channel = Channel(socket.socket(fileno=channel_number))
    code = 0
    try:
        Worker(channel, channel.receive()).run()
    except EOFError:
        pass  # the other process has ended
    except BaseException:
        traceback.print_exc()
        code = 1
    # Not through the interpreter's end, which waits for what gloo and OpenMP still hold.
    sys.stderr.flush()
    os._exit(code)


def _die_with(parent_id: int) -> None:
    """Let Linux kill this process when the parent's thread that started it ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:  # it died before
        os._exit(1)


def _end_with_input() -> None:
    """End at once, in whatever long call this process is, when the parent is gone or says so."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)
