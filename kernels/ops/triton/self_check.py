"""Try each op beside the reference, so that no engine computes with kernels that are wrong here.

What "auto" means on a CUDA device hangs on it: drivers, compilers and GPUs differ, and a model that
answers nonsense is worse than a slow one. Compiling takes seconds once; Triton keeps the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolkit.kernels import reference

__all__ = ["disagreements"]

_HEAD_DIM, _BLOCK_SIZE, _NUM_BLOCKS = 64, 16, 24
_NUM_TOKENS = 19  # a chunk of 18 and a single token
# bfloat16 has 8 bits: sums of some dozen rounded products stay within this part of the largest.
_TOLERANCE = 0.03


class _Call(NamedTuple):
    op: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = {}


def disagreements(ops: Mapping[str, Callable[..., Any]], device: torch.device) -> dict[str, str]:
    """Return what is wrong with some ops on a device, by their names; nothing if all is well.

    An op is wrong if it raises, or if a result or a tensor that it writes to is not the
    reference's: token ids exactly, numbers within 3 % of the largest.
    """
    found = {}
    for call in _calls(device):
        if call.op not in ops:
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


def _result(op: Callable[..., Any], call: _Call) -> list[Tensor]:
    """Return what an op returns, and its arguments as they are afterwards: some are written to."""
    copies = [x.clone() if isinstance(x, Tensor) else x for x in call.arguments]
    returned = op(*copies, **call.options)
    results = returned if isinstance(returned, tuple) else (returned,)
    caches = [x for x in copies if isinstance(x, Tensor) and x.dim() == 4]
    return [x for x in (*results, *caches) if x is not None]


def _difference(own: Tensor, expected: Tensor) -> str | None:
    if own.shape != expected.shape or own.dtype != expected.dtype:
        return f"{list(own.shape)} {own.dtype} instead of {list(expected.shape)} {expected.dtype}"
    if not expected.dtype.is_floating_point:
        return None if own.equal(expected) else "other token ids"
    if not own.isfinite().equal(expected.isfinite()):
        return "numbers that are not finite, or are where they should not be"
    is_finite = expected.isfinite()
    exact = expected[is_finite].float()
    error = float((own[is_finite].float() - exact).abs().max())
    largest = float(exact.abs().max())
    return None if error <= _TOLERANCE * largest else f"off by {error:.2g} of {largest:.2g}"


def _calls(device: torch.device) -> Iterator[_Call]:
    """Yield a call of every op, small and in bfloat16."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, generator=draw).to(device, dtype)

    def whole(values: list[int], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    wide = normal(_NUM_TOKENS, 160)
    weight, bias = normal(160), normal(160)
    yield _Call("rms_norm", (wide, weight, 1e-6))
    yield _Call("add_rms_norm", (wide, normal(_NUM_TOKENS, 160), weight, 1e-6))
    yield _Call("layer_norm", (wide, weight, bias, 1e-6))
    yield _Call("add_layer_norm", (wide, normal(_NUM_TOKENS, 160), weight, bias, 1e-6))
    yield _Call("silu_mul", (wide,))
    yield _Call("gelu_mul", (wide, "tanh"))
    yield _Call("linear", (wide, normal(96, 160)))
    yield _Call("grouped_linear", (wide, normal(3, 96, 160), whole([0, 7, 7, _NUM_TOKENS])))

    query, key, value = (normal(_NUM_TOKENS, heads, _HEAD_DIM) for heads in (8, 2, 2))
    angles = normal(_NUM_TOKENS, _HEAD_DIM // 2, dtype=torch.float32)
    rotation = angles.cos(), angles.sin()
    shape = (_NUM_BLOCKS, 2, _BLOCK_SIZE, _HEAD_DIM)
    caches = normal(*shape), normal(*shape)
    slots = whole([5 * i % (_NUM_BLOCKS * _BLOCK_SIZE) for i in range(_NUM_TOKENS)])
    yield _Call("rotary", (query, key, *rotation))
    yield _Call("write_kv", (key, value, *caches, slots))
    yield _Call("rotary_write_kv", (query, key, value, *rotation, *caches, slots))
    tables = whole(list(range(_NUM_BLOCKS)), torch.int32).view(2, -1).flip(1).contiguous()
    starts = whole([0, _NUM_TOKENS - 1, _NUM_TOKENS], torch.int32)
    contexts = whole([50, 190], torch.int32)
    scale = {"scale": _HEAD_DIM**-0.5}
    yield _Call("paged_attention", (query, *caches, tables, starts, contexts), scale)

    logits = 4 * normal(3, 1_000, dtype=torch.float32)
    yield _Call("argmax", (logits,))
    yield _Call("race", (logits, whole([1, -2, 3 << 40])))
    limits = {
        "top_k": whole([40, 1_000, 3]),
        "max_top_k": 1_000,
        "top_p": torch.tensor([1.0, 0.8, 0.9], device=device),
        "min_p": torch.tensor([0.0, 0.0, 0.01], device=device),
    }
    yield _Call("cut_unlikely", (logits,), limits)
