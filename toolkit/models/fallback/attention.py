"""Attend over the paged cache from inside transformers' own modelling code.

transformers looks an attention function up by name in its AttentionInterface; ours stands there as
``PAGED``. A mask function of that name is left out on purpose: transformers then builds no mask at
all, and causality and windows are what kernels.ops computes.
Request path 6/8: from models.fallback.decoder, to kernels.ops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from toolkit.kernels import Ops
from toolkit.models.attention import LayerCache
from toolkit.models.batch import FlatBatch

__all__ = ["PAGED", "PagedStep", "running"]

PAGED = "toolkit_paged"


@dataclass(frozen=True, slots=True)
class PagedStep:
    """What every layer's attention needs in one forward pass, besides query, key and value."""

    batch: FlatBatch
    kv: Sequence[LayerCache]
    ops: Ops
    windows: tuple[int | None, ...]  # per layer: positions seen, own included


# A context variable and no argument of forward: not every model hands unknown arguments on to its
# attention. Each thread has its own value, so engines in several threads never meet here.
_current: ContextVar[PagedStep] = ContextVar("paged_step")


@contextmanager
def running(step: PagedStep) -> Iterator[None]:
    """Let ``PAGED`` attention in this thread read and write the step's caches."""
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Write keys and values into the layer's cache; attend to all that the batch's requests have.

    query [1, num_heads, num_tokens, head_dim], key and value [1, num_kv_heads, ...]; returns
    [1, num_tokens, num_heads, head_dim] and no weights. The rest of what transformers passes was
    looked at by models.fallback.probing, which refuses what would change the result.
    """
    step = _current.get()
    layer: int = module.layer_idx
    keys, values = step.kv[layer]
    # transformers' rotary may leave the model's dtype; the cache and the kernels have one.
    flat = [x[0].transpose(0, 1).to(keys.dtype).contiguous() for x in (query, key, value)]
    step.ops.write_kv(flat[1], flat[2], keys, values, step.batch.slots)
    mixed = step.ops.paged_attention(
        flat[0],
        keys,
        values,
        step.batch.block_tables,
        step.batch.query_starts,
        step.batch.context_lens,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=step.windows[layer],
        softcap=softcap,
        sinks=s_aux,
    )
    return mixed.unsqueeze(0).to(value.dtype), None


AttentionInterface.register(PAGED, _attend)
