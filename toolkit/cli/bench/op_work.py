"""What one call of an op asks of the machine, from its arguments and result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Work", "op_work"]


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations and bytes moved between memory and processor, each number once."""

    flops: float
    num_bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.num_bytes + other.num_bytes)

    @property
    def intensity(self) -> float:
        """Operations per byte: where the op stands on a roofline."""
        return self.flops / self.num_bytes


# Operations per number of the result, of the ops that go through rows once; a rough count, for
# these are bound by memory everywhere.
_ROW_FLOPS = {"rms_norm": 4, "layer_norm": 8, "rotary": 3, "silu_mul": 6, "gelu_mul": 10}
_DEFAULT_ROW_FLOPS = 1


def op_work(op: str, args: tuple[Any, ...], result: Any) -> Work:
    """Count the work of ``op(*args) -> result``, an op of toolkit.kernels.

    >>> import torch
    >>> x, weight = torch.ones(2, 8), torch.ones(4, 8)
    >>> op_work("linear", (x, weight), torch.ones(2, 4))
    Work(flops=128, num_bytes=224)
    """
    if op == "linear":
        return _linear_work(args, result)
    if op == "grouped_linear":
        return _grouped_work(args, result)
    if op == "paged_attention":
        return _attention_work(args, result)
    if op in ("write_kv", "rotary_write_kv"):
        # The caches are arguments, of which only the slots of these tokens are written.
        num_bytes = sum(map(_bytes_of, args[:2])) * 2 + (0 if result is None else _bytes_of(result))
        return Work(0, num_bytes)
    results = list(_tensors(result))
    num_bytes = sum(map(_bytes_of, (*_tensors(args), *results)))
    per_number = _ROW_FLOPS.get(op.removeprefix("add_"), _DEFAULT_ROW_FLOPS)
    # Sampling looks at every logit and gives one number a row.
    whole = args[0] if op in ("race", "argmax") else results[0]
    return Work(per_number * whole.numel(), num_bytes)


def _linear_work(args: tuple[Any, ...], out: Tensor) -> Work:
    x, weight = args[:2]
    # A packed weight may compute a gated activation as well: its result is half as wide.
    num_out = getattr(weight, "out_features", out.shape[-1])
    return Work(2 * x.numel() * num_out, weight.nbytes + _bytes_of(x) + _bytes_of(out))


def _grouped_work(args: tuple[Any, ...], out: Tensor) -> Work:
    """Count the matrices of the groups that have rows."""
    x, weight, starts = args[:3]
    num_bytes = (
        int((starts.diff() > 0).sum()) * _bytes_of(weight[0]) + _bytes_of(x) + _bytes_of(out)
    )
    return Work(2 * x.numel() * out.shape[-1], num_bytes)


def _attention_work(args: tuple[Any, ...], out: Tensor) -> Work:
    """Count causal pairs and the keys and values of each request's context, without a window."""
    query, key_cache, _, _, query_starts, context_lens = args[:6]
    num_pairs = 0
    for count, context in zip(query_starts.diff().tolist(), context_lens.tolist(), strict=True):
        num_pairs += count * context - count * (count - 1) // 2
    _, num_kv_heads, _, head_dim = key_cache.shape
    kv_bytes = 2 * int(context_lens.sum()) * num_kv_heads * head_dim * key_cache.itemsize
    flops = 4 * query.shape[1] * head_dim * num_pairs
    return Work(flops, kv_bytes + _bytes_of(query) + _bytes_of(out))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _bytes_of(x: Tensor) -> int:
    return x.numel() * x.element_size()
