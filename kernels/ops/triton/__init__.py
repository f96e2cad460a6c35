"""The ops in Triton: on a GPU, or on a CPU under Triton's interpreter.

Each file has an op's kernels and their launcher, named like the reference. Launchers never wait for
the device, so that CUDA graphs can capture them.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from toolkit.kernels.triton.activations import gelu_mul, silu_mul
from toolkit.kernels.triton.attention import paged_attention
from toolkit.kernels.triton.cutoffs import cut_unlikely
from toolkit.kernels.triton.grouped_linear import grouped_linear
from toolkit.kernels.triton.layer_norm import add_layer_norm, layer_norm
from toolkit.kernels.triton.linear import linear
from toolkit.kernels.triton.rms_norm import add_rms_norm, rms_norm
from toolkit.kernels.triton.rotary import rotary, rotary_write_kv
from toolkit.kernels.triton.rounding import INTERPRETED
from toolkit.kernels.triton.sampling import argmax, race
from toolkit.kernels.triton.write_kv import write_kv

__all__ = ["bind", "is_interpreted"]

_OPS = (
    grouped_linear,
    rms_norm,
    add_rms_norm,
    layer_norm,
    add_layer_norm,
    rotary,
    silu_mul,
    gelu_mul,
    write_kv,
    rotary_write_kv,
    paged_attention,
    race,
    argmax,
    cut_unlikely,
)


def bind(*, batch_invariant: bool = False) -> dict[str, Callable[..., Any]]:
    """Return the ops that there are in Triton by name.

    Linear maps are torch's, which are faster, unless a row is to get the same bits in every batch.
    """
    ops: dict[str, Callable[..., Any]] = {op.__name__: op for op in _OPS}
    if batch_invariant:
        ops["linear"] = linear
        ops["paged_attention"] = partial(paged_attention, batch_invariant=True)
    if torch.cuda.device_count() > 1:
        ops = {name: _on_its_device(op) for name, op in ops.items()}
    return ops


def _on_its_device(op: Callable[..., Any]) -> Callable[..., Any]:
    """Let an op launch where its first tensor lies: Triton launches on the current device."""

    @wraps(op)
    def launch(first: Tensor, *others: Any, **options: Any) -> Any:
        with torch.cuda.device_of(first):
            return op(first, *others, **options)

    return launch


def is_interpreted() -> bool:
    """Whether the kernels, and what they use of triton.language, run under the interpreter.

    It is settled when each is imported.
    """
    return bool(INTERPRETED.value) and not isinstance(tl.sum, triton.JITFunction)
