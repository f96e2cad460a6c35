"""Try each op beside the reference, so that no engine computes with kernels that are wrong here.

What "auto" means on a CUDA device hangs on it: drivers, compilers and GPUs differ, and a model that
answers nonsense is worse than a slow one. Compiling takes seconds once; Triton keeps the results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.check_calls import Call, calls

__all__ = ["disagreements"]

# Parts of a row's largest number, each the distance between two neighbours at 1: one in half
# precision, where sums are rounded once; in float32, the order of sums and elementary functions.
_UNITS = {torch.float32: 64}


def disagreements(ops: Mapping[str, Callable[..., Any]], device: torch.device) -> dict[str, str]:
    """Return what is wrong with some ops on a device, by their names; nothing if all is well.

    An op is wrong if it raises, or if a result or a tensor that it writes to is not the
    reference's: token ids exactly, numbers within what rounding does to the largest of their row.
    Tried are bfloat16, float16, and heads of 64 and 128.
    """
    found: dict[str, str] = {}
    for call in calls(device):
        if call.op not in ops or call.op in found:
            continue
        try:
            own, expected = (
                _result(op, call) for op in (ops[call.op], getattr(reference, call.op))
            )
            wrong = next(filter(None, map(_difference, own, expected)), None)
        except Exception as error:  # whatever a compiler or a driver raises
            wrong = f"{type(error).__name__}: {error}"
        if wrong is not None:
            found[call.op] = wrong
    return found


def _result(op: Callable[..., Any], call: Call) -> list[Tensor]:
    """Return what an op returns, and its arguments as they are afterwards: some are written to."""
    copies = [x.clone() if isinstance(x, Tensor) else x for x in call.arguments]
    returned = op(*copies, **call.options)
    results = returned if isinstance(returned, tuple) else (returned,)
    if call.op == "argmax":
        token_ids, is_sound = results
        results = token_ids.masked_fill(~is_sound, 0), is_sound  # the others mean nothing
    caches = [x for x in copies if isinstance(x, Tensor) and x.dim() == 4]
    return [x for x in (*results, *caches) if x is not None]


def _difference(own: Tensor, expected: Tensor) -> str | None:
    if own.shape != expected.shape or own.dtype != expected.dtype:
        return f"{list(own.shape)} {own.dtype} instead of {list(expected.shape)} {expected.dtype}"
    if not expected.dtype.is_floating_point:
        return None if own.equal(expected) else "other token ids"
    if not own.isfinite().equal(expected.isfinite()):
        return "numbers that are not finite, or are where they should not be"
    exact = expected.float().nan_to_num(0.0, 0.0, 0.0)
    errors = (own.float().nan_to_num(0.0, 0.0, 0.0) - exact).abs().amax(dim=-1)
    largest = exact.abs().amax(dim=-1)
    tolerance = _UNITS.get(expected.dtype, 1) * torch.finfo(expected.dtype).eps
    excess = (errors - tolerance * largest).flatten()
    worst = int(excess.argmax())
    if float(excess[worst]) <= 0:
        return None
    error, size = (float(x.flatten()[worst]) for x in (errors, largest))
    return f"off by {error:.2g} of {size:.2g}, the largest of its row"
