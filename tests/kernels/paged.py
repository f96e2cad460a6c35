"""Batches over a paged cache, and attention over them in float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

# Largest error over the largest value. float32: rounding over some hundred sums; bfloat16 and
# float16: of the output, and of the probabilities in bfloat16.
ATTENTION_BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
SLOPES, SINKS = torch.tensor([0.5, 0.25, 0.02, 0.01]), torch.tensor([0.5, -1.0, 3.0, -torch.inf])
FORMS: dict[str, dict[str, Any]] = {
    "window of one": {"window": 1},
    "window within a block": {"window": 3},
    "window over tiles": {"window": 270},
    "window past the context": {"window": 10_000},
    "alibi": {"alibi_slopes": SLOPES},
    "softcap": {"softcap": 2.0},
    "softcap far away": {"softcap": 50.0},
    "sinks": {"sinks": SINKS},
    "all": {"window": 40, "alibi_slopes": SLOPES, "softcap": 2.0, "sinks": SINKS},
}


@dataclass
class Paged:
    """A mixed batch over scattered blocks; what no request owns is nan."""

    query: Tensor  # [num_tokens, num_heads, head_dim]
    keys: list[Tensor]  # per request [context, num_kv_heads, head_dim]
    values: list[Tensor]
    key_cache: Tensor
    value_cache: Tensor
    where: tuple[Tensor, Tensor, Tensor]  # block_tables, query_starts, context_lens

    def expected(self, scale: float, **form: Any) -> Tensor:
        """Attend one query and one head at a time, in float64."""
        out, row = [], 0
        starts = self.where[1].tolist()
        for keys, values, (start, stop) in zip(
            self.keys, self.values, pairwise(starts), strict=True
        ):
            for i in range(stop - start):
                position = len(keys) - (stop - start) + i
                out.append(attend_once(self.query[row], keys, values, position, scale, **form))
                row += 1
        return torch.stack(out) if out else self.query.double()


def attend_once(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    position: int,
    scale: float,
    *,
    alibi_slopes: Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    num_heads, group = len(query), len(query) // keys.shape[1]
    first = 0 if window is None else max(0, position + 1 - window)
    out = []
    for head in range(num_heads):
        seen = keys[first : position + 1, head // group].double()
        scores = seen @ query[head].double() * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if alibi_slopes is not None:
            distance = position - torch.arange(first, position + 1)
            scores = scores - alibi_slopes[head].double() * distance
        weights = scores.exp()
        total = weights.sum() + (0 if sinks is None else sinks[head].double().exp())
        out.append(weights / total @ values[first : position + 1, head // group].double())
    return torch.stack(out)


def make_paged(
    contexts: list[int],
    num_queries: list[int],
    *,
    num_kv_heads: int = 2,
    group: int = 2,
    head_dim: int = 16,
    block_size: int = 4,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Paged:
    generator = torch.Generator().manual_seed(seed)
    counts = [-(-context // block_size) for context in contexts]
    order = (1 + torch.randperm(sum(counts), generator=generator)).tolist()
    tables = torch.zeros(len(contexts), max(counts, default=0) + 1, dtype=torch.int32)
    shape = (sum(counts) + 1, num_kv_heads, block_size, head_dim)
    key_cache, value_cache = (torch.full(shape, torch.nan, dtype=dtype) for _ in range(2))
    keys, values = [], []
    for request, (context, count) in enumerate(zip(contexts, counts, strict=True)):
        blocks = [order.pop() for _ in range(count)]
        tables[request, :count] = torch.tensor(blocks)
        for cache, kept in ((key_cache, keys), (value_cache, values)):
            rows = torch.randn(context, num_kv_heads, head_dim, generator=generator).to(dtype)
            kept.append(rows)
            for position in range(context):
                cache[blocks[position // block_size], :, position % block_size] = rows[position]
    starts = torch.tensor([0, *num_queries]).cumsum(0, dtype=torch.int32)
    query = torch.randn(sum(num_queries), num_kv_heads * group, head_dim, generator=generator).to(
        dtype
    )
    where = (tables, starts, torch.tensor(contexts, dtype=torch.int32))
    return Paged(query, keys, values, key_cache, value_cache, where)


def oracle(
    case: Paged,
    scale: float,
    *,
    alibi_slopes: Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attend in float64 from the keys and values as they were before they were paged."""
    out = [case.query[:0].double()]
    for keys, values, (start, stop) in zip(
        case.keys, case.values, pairwise(case.where[1].tolist()), strict=True
    ):
        query = case.query[start:stop].double()
        context, group = len(keys), query.shape[1] // keys.shape[1]
        keys, values = (x.double().repeat_interleave(group, 1) for x in (keys, values))
        scores = torch.einsum("qhd,chd->hqc", query, keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        distance = torch.arange(context - len(query), context)[:, None] - torch.arange(context)
        if alibi_slopes is not None:
            scores = scores - alibi_slopes.double()[:, None, None] * distance
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        scores = scores.masked_fill(hidden, -torch.inf)
        if sinks is not None:
            column = sinks.double()[:, None, None].expand(-1, len(query), 1)
            scores = torch.cat((scores, column), dim=-1)
        out.append(torch.einsum("hqc,chd->qhd", scores.softmax(-1)[..., :context], values))
    return torch.cat(out)


def assert_right(actual: Tensor, case: Paged, scale: float, **form: Any) -> None:
    """Compare with the oracle, within the bounds of the query's dtype."""
    expected = oracle(case, scale, **form)
    assert actual.dtype == case.query.dtype
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    assert error < ATTENTION_BOUNDS[case.query.dtype]
