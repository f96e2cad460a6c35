"""Check where, in what and how much of it a capture is to keep activations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from toolkit.errors import InvalidParameter

__all__ = ["Keeping", "checked_keeping"]


class Keeping(NamedTuple):
    """Where and as what a capture keeps activations, and how much of them."""

    dtype: torch.dtype | None  # None: as the model has them
    device: torch.device | None  # None: where the model is
    max_gb: float


def checked_keeping(*, dtype: Any, device: Any, max_gb: Any, sink: Any, requests: Any) -> Keeping:
    """Return what was asked for; raise InvalidParameter for what cannot be."""
    for name, function in (("sink", sink), ("requests", requests)):
        if function is not None and not callable(function):
            raise InvalidParameter(f"{name} is a function, not {function!r:.80}", param=name)
    is_number = isinstance(max_gb, (int, float)) and not isinstance(max_gb, bool)
    if not is_number or not max_gb > 0:
        raise InvalidParameter(
            f"max_gb must be a number above 0, not {max_gb!r:.80}", param="max_gb"
        )
    return Keeping(_dtype(dtype), _device(device), float(max_gb))


def _dtype(given: Any) -> torch.dtype | None:
    found = given
    if isinstance(given, str):
        found = getattr(torch, given.removeprefix("torch."), given)
    if found is None or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise InvalidParameter(
        f'dtype must be a floating-point dtype such as torch.float16 or "float16", not '
        f"{given!r:.80}",
        param="dtype",
    )


def _device(given: Any) -> torch.device | None:
    if given is None:
        return None
    try:
        device = torch.device(given)
        torch.empty(1, device=device)  # torch knows the names of devices that are not there
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidParameter(
            f"device={given!r:.80} cannot keep activations: {error!s:.200}", param="device"
        ) from error
    if device.type == "meta":
        raise InvalidParameter("device='meta' keeps no numbers", param="device")
    return device
