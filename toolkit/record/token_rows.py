"""What is stored of the chunks and tokens of a step: whole columns, from what it reports.

A step of 64 requests has 64 tokens, and their rows cost more than all others together. What one
token alone decides (a grammar's choice, log-probabilities, facts) is rare and looked at only where
it is; the rest is made by column.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from operator import add
from typing import Any

from toolkit.engine.events import RequestUpdate, SampledToken, StepReport
from toolkit.record.live_requests import Batch

__all__ = ["chunk_columns", "gaps", "new_tokens", "token_columns"]

_NAN = float("nan")
Columns = Iterable[Iterable[Any]]


def new_tokens(
    updates: Sequence[RequestUpdate], known: Container[str]
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[SampledToken, ...]]:
    """Return request, output index and token of every new token; requests must be ``known``."""
    one_by_one = [
        (update.request_id, update.first_index + place, token)
        for update in updates
        if update.request_id in known
        for place, token in enumerate(update.tokens)
    ]
    names, indices, tokens = zip(*one_by_one, strict=True) if one_by_one else ((), (), ())
    return names, indices, tokens


def chunk_columns(
    step: int, spans: Sequence[Sequence[Any]], is_again: Sequence[bool] | None
) -> Columns:
    """Return the columns of CHUNK_KINDS.

    Args:
        step: Its number.
        spans: Request ids, starts and ends of its chunks.
        is_again: Which of them compute what had been computed before; None for none of them.
    """
    count = len(spans[0])
    return array("q", (step,)) * count, *spans, is_again or _zeros("b", count)


def gaps(batch: Batch, sent_s: float) -> list[float]:
    """Add a moment to those at which each request got a token; return how long it had waited."""
    found = []
    for times in batch.sent_s:
        found.append(sent_s - times[-1] if times else _NAN)
        times.append(sent_s)
    return found


def token_columns(
    report: StepReport,
    batch: Batch,
    origin_s: float,
    *,
    indices: Sequence[int],
    tokens: Sequence[SampledToken],
    itl_s: Sequence[float],
) -> tuple[Columns, list[tuple[str, int, dict[str, Any]]]]:
    """Return the columns of TOKEN_KINDS, and (request id, position, facts) where there are facts.

    Args:
        report: Of the step.
        batch: Whose token each is.
        origin_s: What times count from.
        indices: Of each among its request's.
        tokens: What was sampled.
        itl_s: Since the request's last one.
    """
    count = len(tokens)
    token_ids, logprobs, _, sources, entropies, facts = zip(*tokens, strict=True)
    positions = list(map(add, indices, batch.num_prompts))
    columns = (
        batch.names,
        indices,
        positions,
        array("q", (report.step,)) * count,
        token_ids,
        array("d", (report.end_s - report.update_s - origin_s,)) * count,
        array("d", (report.sent_s - origin_s,)) * count,
        itl_s,
        *_scores(token_ids, logprobs),
        _nulls(count) if _is_void(entropies) else _or_nan(entropies),
        batch.sources(sources),
    )
    return columns, [] if _is_void(facts) else [
        (name, position, own)
        for name, position, own in zip(batch.names, positions, facts, strict=True)
        if own is not None
    ]


def _scores(token_ids: Sequence[int], logprobs: Sequence[Any]) -> Iterator[Iterable[Any]]:
    """Yield the columns logprob_raw, logprob_processed and rank_raw."""
    if _is_void(logprobs):
        yield from (_nulls(len(token_ids)), _nulls(len(token_ids)), _zeros("q", len(token_ids)))
        return
    entries = [
        None if known is None else known.get(token_id)
        for token_id, known in zip(token_ids, logprobs, strict=True)
    ]
    yield _or_nan([None if entry is None else entry.logprob for entry in entries])
    yield _or_nan([None if entry is None else entry.logprob_processed for entry in entries])
    yield [0 if entry is None else entry.rank or 0 for entry in entries]


def _is_void(values: Sequence[Any]) -> bool:
    return values.count(None) == len(values)


def _or_nan(values: Iterable[float | None]) -> list[float]:
    return [_NAN if value is None else value for value in values]


@lru_cache(maxsize=256)
def _nulls(count: int) -> array[float]:
    return array("d", (_NAN,)) * count


@lru_cache(maxsize=256)
def _zeros(kind: str, count: int) -> array[int]:
    return array(kind, (0,)) * count
