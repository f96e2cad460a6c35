"""One row of the ``steps`` and ``requests`` tables, from what the engine reports."""

from __future__ import annotations

from typing import Any

from toolkit.engine.events import StepReport
from toolkit.request import WAIT_CAUSES, Request

__all__ = ["REQUEST_COLUMNS", "STEP_COLUMNS", "request_row", "step_row"]

STEP_COLUMNS = (
    "step",
    "start_s",
    "duration_s",
    "schedule_s",
    "prepare_s",
    "forward_s",
    "sample_s",
    "update_s",
    "host_gap_s",
    "num_requests",
    "num_tokens",
    "num_prompt_tokens",
    "num_decode_tokens",
    "token_budget",
    "num_running",
    "num_waiting",
    "num_admitted",
    "num_preempted",
    "num_finished",
    "num_cached_tokens",
    "num_recomputed_tokens",
    "context_tokens",
    "attention_work",
    "blocks_used",
    "blocks_cached",
    "blocks_free",
    "num_evicted",
    "limited_by",
    "policy",
    "slow_path",
)

REQUEST_COLUMNS = (
    "request_id",
    "parent_id",
    "sample_index",
    "api_id",
    "client_request_id",
    "endpoint",
    "status",
    "finish_reason",
    "error",
    "priority",
    "seed",
    "arrival_s",
    "queued_s",
    "first_scheduled_s",
    "first_token_s",
    "last_token_s",
    "finished_s",
    "num_prompt_tokens",
    "num_cached_tokens",
    "num_output_tokens",
    "max_tokens",
    "num_steps",
    "num_preemptions",
    "num_recomputed_tokens",
    "peak_blocks",
    "tokenize_s",
    *(f"wait_{cause}_s" for cause in WAIT_CAUSES),
    "ttft_s",
    "tpot_s",
    "e2e_s",
)


def step_row(report: StepReport, origin_s: float, *, host_gap_s: float) -> tuple[Any, ...]:
    """Return one row in the order of STEP_COLUMNS."""
    plan, times, blocks = report.plan, report.result.times, report.blocks_after
    lengths = [(chunk.end - chunk.start, chunk.end) for chunk in plan.chunks]
    # A chunk of one token that samples is a decode step, a prompt of one token aside.
    num_decode = sum(1 for c in plan.chunks if c.end - c.start == 1 and not c.is_first)
    return (
        report.step,
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
        plan.num_tokens - num_decode,
        num_decode,
        plan.token_budget,
        report.num_running,
        report.num_waiting,
        len(plan.admitted_ids),
        len(plan.preempted_ids),
        sum(1 for update in report.updates if update.finish_reason is not None),
        report.num_cached_tokens,
        report.num_recomputed_tokens,
        sum(end for _, end in lengths),
        # Query-key pairs: each of q new tokens sees the k before it and on average half of the q.
        sum(q * (end - q + q / 2) for q, end in lengths),
        blocks.used,
        blocks.cached,
        blocks.empty + blocks.cached,
        report.num_evicted,
        plan.limited_by,
        report.policy,
        report.result.slow_path,
    )


def request_row(request: Request, origin_s: float) -> dict[str, Any]:
    """Return one row by column name; times that are not yet known are None."""

    def since(time_s: float | None) -> float | None:
        return None if time_s is None else time_s - origin_s

    def between(start_s: float | None, end_s: float | None) -> float | None:
        return None if start_s is None or end_s is None else end_s - start_s

    decode_s = between(request.first_token_s, request.last_token_s)
    num_gaps = request.num_output_tokens - 1
    origin = request.origin
    return {
        "request_id": request.id,
        "parent_id": request.parent_id,
        "sample_index": request.sample_index,
        "api_id": origin.api_id if origin else None,
        "client_request_id": origin.client_request_id if origin else None,
        "endpoint": origin.endpoint if origin else None,
        "status": request.status.value,
        "finish_reason": str(request.finish_reason) if request.finish_reason else None,
        "error": str(request.error) if request.error else None,
        "priority": request.priority,
        "seed": request.seed,
        "arrival_s": since(request.arrival_s),
        "queued_s": since(request.queued_s),
        "first_scheduled_s": since(request.first_scheduled_s),
        "first_token_s": since(request.first_token_s),
        "last_token_s": since(request.last_token_s),
        "finished_s": since(request.finished_s),
        "num_prompt_tokens": request.num_prompt_tokens,
        "num_cached_tokens": request.num_cached_tokens,
        "num_output_tokens": request.num_output_tokens,
        "max_tokens": request.max_tokens,
        "num_steps": request.num_steps,
        "num_preemptions": request.num_preemptions,
        "num_recomputed_tokens": request.num_recomputed_tokens,
        "peak_blocks": request.peak_blocks,
        "tokenize_s": request.tokenize_s,
        **{f"wait_{cause}_s": request.waits_s.get(cause, 0.0) for cause in WAIT_CAUSES},
        "ttft_s": between(request.arrival_s, request.first_token_s),
        "tpot_s": decode_s / num_gaps if decode_s is not None and num_gaps > 0 else None,
        "e2e_s": between(request.arrival_s, request.finished_s),
        **{f"tags.{name}": value for name, value in request.tags.items()},
    }
