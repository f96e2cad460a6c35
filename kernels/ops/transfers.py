"""Move small tensors between host and device while neither waits for the other.

On a CPU there is nothing to move, and nothing here costs anything.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["HostCopy", "current_device", "staged", "to_device"]


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Let a GPU be this thread's current one, where kernels are launched and graphs captured.

    Tensors of ``cuda:1`` alone do not make it that: Triton's kernels, streams and events go to the
    current device, which is ``cuda:0`` until somebody says otherwise.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def staged(values: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor as ``copy_(..., non_blocking=True)`` to a device needs it.

    A copy to a GPU from memory that may be paged out waits for everything that the GPU has to do.
    torch hands pinned memory out again only after the copies from it are done.
    """
    return values.pin_memory() if device.type == "cuda" else values


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device; the copy is done before whatever is launched after it."""
    return staged(values, device).to(device, non_blocking=True)


class HostCopy:
    """A copy of a tensor on its way to the host, behind all that was launched before."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))

    def wait(self) -> Tensor:
        """Return it on the CPU; waits for what was launched before it, and for nothing later."""
        if self._event is not None:
            self._event.synchronize()
        return self._values
