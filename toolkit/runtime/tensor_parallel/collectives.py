"""Let processes compute together: sums, broadcasts and gathers over torch.distributed.

Gloo on the CPU, NCCL on GPUs; a group of its own, so that whoever else uses torch.distributed in
this process is not disturbed.
"""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["Collectives", "Parted", "has_backend"]

_LOOK = timedelta(seconds=1)
_NEVER = timedelta(days=365)
_MEETING = timedelta(seconds=30)  # all have loaded when they set out


class Parted(RuntimeError):
    """The others ended, or did not come in time: nothing can be computed together any more."""


def has_backend(device: torch.device) -> bool:
    """Return whether this build of torch can join processes on a kind of device."""
    if not distributed.is_available():
        return False
    if device.type == "cuda":
        return bool(distributed.is_nccl_available())
    return bool(distributed.is_gloo_available())


class Collectives:
    """What the processes of a group do together, once they have joined it.

    All must do the same in the same order. Every call raises Parted where another process has
    ended, or does not come within ``patience_s``.

    Args:
        rank: Which of them this is.
        size: How many they are.
        device: Where the tensors are.
        patience_s: How long to wait for the others.
    """

    def __init__(self, rank: int, size: int, *, device: torch.device, patience_s: float) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.patience_s = patience_s
        self._backend: Any = None
        _LIVING.add(self)

    def join(self, path: str) -> None:
        """Meet the others in a file that does not exist yet; return when all are there."""
        try:
            self._join(path)
        except RuntimeError as error:
            raise Parted(str(error)) from error
        self.sum(torch.zeros(1, device=self.device))

    def _join(self, path: str) -> None:
        kinds: Any = distributed  # what is in it depends on torch's build
        store = kinds.FileStore(path, self.size)
        store.set_timeout(_MEETING)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            options = kinds.ProcessGroupNCCL.Options()
            options._timeout = timedelta(seconds=self.patience_s)
            self._backend = kinds.ProcessGroupNCCL(store, self.rank, self.size, options)
        else:
            options = kinds.ProcessGroupGloo._Options()
            # All are on this machine: nobody else is to reach them.
            options._devices = [kinds.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
            options._timeout = _NEVER  # ``_is_done`` looks after it
            self._backend = kinds.ProcessGroupGloo(store, self.rank, self.size, options)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of everybody's x, which is overwritten."""
        x = x.contiguous()
        self._complete(self._backend.allreduce, [x])
        return x

    def broadcast(self, x: Tensor) -> Tensor:
        """Return the first one's x; everybody else's, of the same shape, is overwritten."""
        x = x.contiguous()
        self._complete(self._backend.broadcast, x, 0)
        return x

    def gather(self, x: Tensor) -> list[Tensor]:
        """Return everybody's x in order to the first, to others nothing; all have one shape."""
        x = x.contiguous()
        found = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else []
        self._complete(self._backend.gather, found, x, 0)
        return found

    def settle(self) -> None:
        """Wait for what was begun on a GPU, whose queue goes on even where the others are gone."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
            error = self._backend.get_error()
            if error.name != "SUCCESS":
                raise Parted(f"NCCL: {error.name}")

    def abort(self) -> None:
        """Let this process wait no longer for others, who are gone; gloo sees that by itself."""
        if self._backend is not None and self.device.type == "cuda":
            self._backend.abort()

    def leave(self) -> None:
        """Let go of the group."""
        self._backend = None

    def abandon(self) -> None:
        """Keep the group for ever, in a fork, which has none of the threads that its end awaits."""
        if self._backend is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._backend))

    def _complete(self, operation: Callable[..., Any], *arguments: object) -> None:
        """Do something together with the others, and wait for it."""
        try:
            work = operation(*arguments)
            is_done = self.device.type == "cuda" or self._is_done(work)
            if is_done:
                work.wait()  # which raises what went wrong
        except RuntimeError as error:
            raise Parted(str(error)) from error
        if not is_done:
            raise Parted("it did not come to what all compute together")

    def _is_done(self, work: Any) -> bool:
        """Wait look by look, and return whether something came of it in time.

        A machine or a container that rests meanwhile takes one look's time from the others, where a
        deadline would have passed.
        """
        for _ in range(math.ceil(self.patience_s / _LOOK.total_seconds())):
            with suppress(RuntimeError):  # the look is over, or it went wrong
                work.wait(_LOOK)
            if work.is_completed():
                return True
        return False


_LIVING: weakref.WeakSet[Collectives] = weakref.WeakSet()


def _abandon_all() -> None:
    for each in list(_LIVING):
        each.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
