"""Choose one implementation of every op for a device, once, when an engine is built.

Request path 7/8: models.layers calls what is chosen here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType

import torch
from torch import Tensor

from toolkit.kernels import reference

__all__ = ["Ops", "select_ops"]

_PAIR = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Ops:
    """One implementation of every op; signatures, shapes and formulas are in reference.py.

    >>> ops = select_ops("reference", torch.device("cpu"))
    >>> ops.name
    'reference'
    >>> ops.silu_mul(torch.tensor([[0.0, 2.0]]))
    tensor([[0.]])
    """

    name: str
    linear: Callable[..., Tensor]
    grouped_linear: Callable[..., Tensor]
    rms_norm: Callable[..., Tensor]
    add_rms_norm: _PAIR
    layer_norm: Callable[..., Tensor]
    add_layer_norm: _PAIR
    rotary: _PAIR
    silu_mul: Callable[..., Tensor]
    gelu_mul: Callable[..., Tensor]
    write_kv: Callable[..., None]
    rotary_write_kv: Callable[..., Tensor]
    paged_attention: Callable[..., Tensor]
    race: Callable[..., Tensor]
    argmax: _PAIR

    def __repr__(self) -> str:
        return f"Ops({self.name!r})"


def _ops(name: str, module: ModuleType) -> Ops:
    names = [field.name for field in fields(Ops) if field.name != "name"]
    return Ops(name, **{op: getattr(module, op) for op in names})


# Every implementation of this installation; the fastest stands first, for "auto".
_AVAILABLE = (_ops("reference", reference),)


def select_ops(choice: str, device: torch.device) -> Ops:
    """Return the implementation that ``choice`` names, or the fastest one for "auto".

    ``choice`` is "auto", "reference", "cpu" or "triton". Raises ValueError, naming what there is,
    for an implementation that is not here.
    """
    if choice == "auto":
        return _AVAILABLE[0]
    for ops in _AVAILABLE:
        if ops.name == choice:
            return ops
    names = ", ".join(repr(ops.name) for ops in _AVAILABLE)
    raise ValueError(
        f"no {choice!r} kernels for device {str(device)!r} here; choose 'auto' or one of: {names}"
    )
