"""Choose one implementation of every op for a device, once, when an engine is built.

Request path 7/8: models.layers calls what is chosen here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.contracts import FusedLayers, PackedLinear
from toolkit.kernels.cpu import bind, pack_linear
from toolkit.kernels.cpu.build import (
    CompileError,
    compile_in_background,
    compile_library,
    find_compiled,
)
from toolkit.kernels.cpu.levels import Level, machine_level
from toolkit.kernels.transfers import current_device

__all__ = ["Ops", "select_ops"]

logger = logging.getLogger(__name__)

_PAIR = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Ops:
    """One implementation of every op; signatures, shapes and formulas are in reference.py.

    >>> ops = select_ops("reference", torch.device("cpu"))
    >>> ops
    Ops('reference')
    >>> ops.silu_mul(torch.tensor([[0.0, 2.0]]))
    tensor([[0.]])
    """

    name: str
    linear: Callable[..., Tensor]
    pack_linear: Callable[..., PackedLinear | None]
    grouped_linear: Callable[..., Tensor]
    fuse_layers: Callable[..., FusedLayers | None]
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
    cut_unlikely: Callable[..., Tensor]

    level: str = ""  # instruction set that the C++ ops were compiled for

    def __repr__(self) -> str:
        return f"Ops({self.name!r})" if not self.level else f"Ops({self.name!r}, {self.level})"


def _ops(name: str, module: ModuleType) -> Ops:
    return Ops(name, **{op: getattr(module, op) for op in _op_names()})


def _op_names() -> list[str]:
    return [field.name for field in fields(Ops) if field.name not in ("name", "level")]


_REFERENCE = _ops("reference", reference)
_TORCH = replace(_REFERENCE, name="torch", pack_linear=pack_linear)
_CHOICES = {
    "cpu": ("auto", "reference", "torch", "cpu", "triton"),
    "cuda": ("auto", "reference", "triton"),
}
_INVARIANT = {"cpu": "cpu", "cuda": "triton"}  # what "auto" means in batch-invariant mode


def select_ops(choice: str, device: torch.device, *, batch_invariant: bool = False) -> Ops:
    """Return the implementation that ``choice`` names, or the fastest one for "auto".

    ``choice`` is "auto", "reference", "torch", "cpu" or "triton". "triton" is for CUDA devices,
    where "auto" tries each of its ops beside the reference first: a device on which one of them is
    wrong, or cannot be compiled, gets "reference" and a warning. On a CPU "triton" runs under
    Triton's interpreter, to be looked at, and only where TRITON_INTERPRET=1 says so. "cpu" compiles
    the C++ ops if that has not been done yet, which takes seconds; "auto" takes them if they are
    there, else it starts to compile them in the background for the engines to come, says so in one
    line of the log, and returns "torch": the reference ops with oneDNN's linear maps.

    ``batch_invariant`` asks for ops that give a request the same bits whatever its batch, its
    chunks and its cache hits; "cpu" and "triton" have them, and "auto" picks the device's. (Under
    its interpreter Triton multiplies with NumPy, which promises no bits.) On a CUDA device "auto"
    tries these too, and as nothing else has those bits a wrong one is an error.

    Raises ValueError for what is not here, saying what there is.
    """
    names = _CHOICES.get(device.type, ("auto", "reference"))
    if choice not in names:
        raise ValueError(
            f"no {choice!r} kernels for device {str(device)!r} here; choose one of: "
            + ", ".join(map(repr, names))
        )
    is_checked = choice == "auto" and device.type == "cuda"
    if batch_invariant and choice == "auto":
        choice = _INVARIANT.get(device.type, choice)
    if batch_invariant and choice not in _INVARIANT.values():
        needed = _INVARIANT.get(device.type, "cpu")
        raise ValueError(
            f"batch_invariant=True needs kernels={needed!r}, not {choice!r}, on {device}"
        )
    if choice == "triton" and is_checked:
        return _invariant_triton(device)
    if choice == "triton":
        return _triton_ops(device, batch_invariant=batch_invariant)
    if choice == "torch":
        return _TORCH
    if choice == "auto" and device.type == "cuda":
        return _triton_or_reference(device)
    if choice == "reference" or device.type != "cpu":
        return _REFERENCE
    level = machine_level()
    if choice == "cpu":
        try:
            return _cpu_ops(level, compile_library(level), batch_invariant=batch_invariant)
        except (CompileError, OSError) as error:
            raise ValueError(f"the C++ ops cannot be compiled: {error}") from error
    path = find_compiled(level)
    if path is not None:
        return _cpu_ops(level, path)
    logger.warning("%s; this one uses the slower torch ops", compile_in_background(level))
    return _TORCH


def _cpu_ops(level: Level, path: Path, *, batch_invariant: bool = False) -> Ops:
    bound = bind(path, batch_invariant=batch_invariant)
    return replace(_REFERENCE, name="cpu", level=level.name, **bound)


@cache
def _triton_or_reference(device: torch.device) -> Ops:
    try:
        ops = _triton_ops(device, batch_invariant=False)
    except ValueError as error:
        logger.warning("%s: this engine uses the slower reference ops", error)
        return _REFERENCE
    return _unless_wrong(ops, device)


@cache
def _invariant_triton(device: torch.device) -> Ops:
    return _require_right(_triton_ops(device, batch_invariant=True), device)


def _require_right(ops: Ops, device: torch.device) -> Ops:
    """Return Triton's ops if they agree with the reference on a device; else raise ValueError."""
    wrong = _what_is_wrong(ops, device)
    if wrong:
        raise ValueError(
            f"on {device} these ops in Triton are not as they should be, and no others give a "
            'request the same bits in every batch; kernels="triton" would use them all the same: '
            f"{wrong}"
        )
    return ops


def _unless_wrong(ops: Ops, device: torch.device) -> Ops:
    """Return Triton's ops if they agree with the reference on a device; else say what does not."""
    wrong = _what_is_wrong(ops, device)
    if not wrong:
        return ops
    logger.warning(
        "on %s these ops in Triton are not as they should be, so this engine uses the slower "
        'reference ops; kernels="triton" would use them all the same: %s',
        device,
        wrong,
    )
    return _REFERENCE


def _what_is_wrong(ops: Ops, device: torch.device) -> str:
    """Return which of Triton's ops disagree with the reference, and how; empty if none does."""
    from toolkit.kernels.triton.self_check import disagreements

    own = {
        name: op
        for name in _op_names()
        if (op := getattr(ops, name)) is not getattr(_REFERENCE, name)
    }
    with current_device(device):
        wrong = disagreements(own, device)
    return "; ".join(f"{name}: {what}" for name, what in wrong.items())


def _triton_ops(device: torch.device, *, batch_invariant: bool) -> Ops:
    try:
        from toolkit.kernels import triton
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ValueError("the ops in Triton need the package triton, which is not here") from error
    if device.type == "cpu" and not triton.is_interpreted():
        raise ValueError(
            "on a CPU the ops in Triton run only under Triton's interpreter; "
            "set TRITON_INTERPRET=1 before Python starts, or choose other kernels"
        )
    return replace(_REFERENCE, name="triton", **triton.bind(batch_invariant=batch_invariant))
