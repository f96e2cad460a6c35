"""What is stored of a step and of a request: one row each, from what the engine reports."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import Any

from toolkit.engine.events import StepPlan, StepReport
from toolkit.record.schema import SCHEMA, TAGS, column_names
from toolkit.request import Request

__all__ = ["REQUEST_KINDS", "STEP_KINDS", "itl_figures", "quantile", "request_row", "step_row"]

_NAN = float("nan")
_KINDS = {"int64": "q", "float64": "d", "str": "n", "object": "o"}

STEP_KINDS = {column.name: _KINDS[column.dtype] for column in SCHEMA["steps"]}

# Beside the table's columns: what sorts it, and what says which rows a truncation keeps.
REQUEST_KINDS = {
    **{c.name: _KINDS.get(c.dtype, "o") for c in SCHEMA["requests"] if c.name != TAGS},
    # One by one: names of their own, and integers as large as somebody likes.
    **dict.fromkeys(("request_id", "parent_id", "api_id", "client_request_id", "error"), "o"),
    **dict.fromkeys(("priority", "seed"), "o"),
    "tags": "o",
    "arrival_index": "q",
    "added_step": "q",
    "ended_step": "q",
}
_WAITS = [name for name in column_names("requests") if name.startswith("wait_")]
_CAUSES = [name.removeprefix("wait_").removesuffix("_s") for name in _WAITS]


def step_row(
    report: StepReport, origin_s: float, *, host_gap_s: float, num_prompt: int
) -> tuple[Any, ...]:
    """Return a row in the order of STEP_KINDS; ``num_prompt``: tokens that belong to prompts."""
    plan, times, blocks = report.plan, report.result.times, report.blocks_after
    num_context, num_pairs = _attention(plan)
    return (
        plan.step,
        report.start_s - origin_s,
        report.duration_s,
        report.schedule_s,
        times.prepare_s,
        times.forward_s,
        times.sample_s,
        report.update_s,
        host_gap_s,
        len(plan.chunks),
        plan.num_tokens,
        num_prompt,
        plan.num_tokens - num_prompt,
        plan.token_budget,
        report.num_running,
        report.num_waiting,
        len(plan.admitted_ids),
        len(plan.preempted_ids),
        len(report.updates) - [update[4] for update in report.updates].count(None),
        report.num_cached_tokens,
        report.num_recomputed_tokens,
        num_context,
        num_pairs,
        blocks.used,
        blocks.cached,
        blocks.empty + blocks.cached,
        report.num_evicted,
        plan.limited_by,
        report.policy,
        report.result.slow_path,
    )


def _attention(plan: StepPlan) -> tuple[int, float]:
    """Return the tokens that a step's chunks look back on, and its query-key pairs.

    Of a chunk, each of q = end - start new tokens sees the k = start tokens before it and on
    average half of the q, and q(k + q/2) = (end^2 - start^2) / 2.
    """
    ends = [chunk[2] for chunk in plan.chunks]
    num_context = sum(ends)
    if plan.num_tokens == len(ends):  # one new token each
        return num_context, num_context - len(ends) / 2
    starts = [chunk[1] for chunk in plan.chunks]
    return num_context, (sum(map(mul, ends, ends)) - sum(map(mul, starts, starts))) / 2


def itl_figures(sent_s: array[float]) -> tuple[float, float, float]:
    """Return median, 99th percentile and maximum of the gaps between moments; NaN for none.

    >>> itl_figures(array("d", [0.0, 1.0, 3.0]))
    (1.5, 1.99, 2.0)
    """
    if len(sent_s) < 2:
        return _NAN, _NAN, _NAN
    gaps = sorted([after - before for before, after in pairwise(sent_s)])
    return quantile(gaps, 0.5), quantile(gaps, 0.99), gaps[-1]


def request_row(
    request: Request,
    origin_s: float,
    *,
    sent_s: array[float],
    added_step: int,
    ended_step: int = -1,
) -> tuple[Any, ...]:
    """Return a row in the order of REQUEST_KINDS; a time that is not yet known is NaN.

    Args:
        request: Alive or ended.
        origin_s: What the record's times count from, on the engine's clock.
        sent_s: When each of its tokens was sent.
        added_step: The step in or after which it joined the line.
        ended_step: The step in or after which it ended; -1 while it lives.
    """
    first_s, last_s, finished_s = request.first_token_s, request.last_token_s, request.finished_s
    after_first_s = request.preempted_s - request.preempted_before_first_s
    num_gaps = request.num_output_tokens - 1
    waits, origin = request.waits_s, request.origin
    return (
        request.id,
        request.parent_id,
        request.sample_index,
        origin.api_id if origin else None,
        origin.client_request_id if origin else None,
        origin.endpoint if origin else None,
        request.status.value,
        str(request.finish_reason) if request.finish_reason else None,
        str(request.error) if request.error else None,
        request.priority,
        request.seed,
        _between(origin_s, request.arrival_s),
        _between(origin_s, request.queued_s),
        _between(origin_s, request.first_scheduled_s),
        _between(origin_s, first_s),
        _between(origin_s, last_s),
        _between(origin_s, finished_s),
        request.num_prompt_tokens,
        request.num_cached_tokens,
        request.num_output_tokens,
        request.max_tokens,
        request.num_steps,
        request.num_preemptions,
        request.num_recomputed_tokens,
        request.peak_blocks,
        request.tokenize_s,
        *[waits.get(cause, 0.0) for cause in _CAUSES],
        request.prefill_s,
        _between(first_s, last_s if finished_s is None else finished_s) - after_first_s,
        request.preempted_s,
        request.preempted_before_first_s,
        request.emit_s,
        _between(request.arrival_s, first_s),
        _between(first_s, last_s) / num_gaps if num_gaps > 0 else _NAN,
        *itl_figures(sent_s),
        _between(request.arrival_s, finished_s),
        request.tags or None,
        request.arrival_index,
        added_step,
        ended_step,
    )


def _between(start_s: float | None, end_s: float | None) -> float:
    return _NAN if start_s is None or end_s is None else end_s - start_s


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return a quantile of ordered numbers, interpolated as numpy's is by default; NaN of none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.5
    """
    if not ordered:
        return _NAN
    place = q * (len(ordered) - 1)
    below = int(place)
    after = ordered[min(below + 1, len(ordered) - 1)]
    return ordered[below] + (after - ordered[below]) * (place - below)
