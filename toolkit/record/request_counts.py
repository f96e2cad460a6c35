"""Add up requests: once at the first token of each, and once at its end."""

from __future__ import annotations

from collections import Counter

from toolkit.record.histogram import (
    FIRST_TOKEN_BOUNDS_S,
    NUM_PREEMPTIONS_BOUNDS,
    NUM_SAMPLES_BOUNDS,
    REQUEST_BOUNDS_S,
    TOKEN_BOUNDS_S,
    Histogram,
    token_count_bounds,
)
from toolkit.request import FinishReason, Request

__all__ = ["RequestCounts"]


class RequestCounts:
    """Counters and histograms over requests; every sample of ``n > 1`` is one, as in vLLM.

    Args:
        max_model_len: Bounds the histograms of token counts.
        asks_prefix_cache: Whether prompts are looked up in the prefix cache.
    """

    def __init__(self, *, max_model_len: int, asks_prefix_cache: bool) -> None:
        token_counts = token_count_bounds(max_model_len)
        self._asks_prefix_cache = asks_prefix_cache
        self._num_open: dict[str, int] = {}  # samples, of requests of which one has ended
        self.ended: Counter[str] = Counter({str(reason): 0 for reason in FinishReason})
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.queried_tokens = 0
        self.first_token_s = Histogram(FIRST_TOKEN_BOUNDS_S)
        self.per_output_token_s = Histogram(TOKEN_BOUNDS_S)
        self.end_to_end_s = Histogram(REQUEST_BOUNDS_S)
        self.queue_s = Histogram(REQUEST_BOUNDS_S)
        self.prefill_s = Histogram(REQUEST_BOUNDS_S)
        self.decode_s = Histogram(REQUEST_BOUNDS_S)
        self.inference_s = Histogram(REQUEST_BOUNDS_S)
        self.grammar_wait_s = Histogram(REQUEST_BOUNDS_S)
        self.num_prompt_tokens = Histogram(token_counts)
        self.num_computed_tokens = Histogram(token_counts)
        self.num_output_tokens = Histogram(token_counts)
        self.max_output_tokens = Histogram(token_counts)
        self.max_tokens_param = Histogram(token_counts)
        self.n_param = Histogram(NUM_SAMPLES_BOUNDS)
        self.num_preemptions = Histogram(NUM_PREEMPTIONS_BOUNDS)

    def count_first_token(self, request: Request) -> None:
        """A request got its first token: its prompt is computed."""
        self._count_prompt(request)
        if request.first_token_s is not None:
            self.first_token_s.observe(request.first_token_s - request.arrival_s)

    def count_end(self, request: Request) -> None:
        """A request ended, well or not."""
        reason = request.finish_reason
        self.ended[str(reason)] += 1
        if request.first_token_s is None and reason in (FinishReason.STOP, FinishReason.LENGTH):
            self._count_prompt(request)  # it was asked for no token, so there was no first one
        self._observe_times(request)
        self.num_prompt_tokens.observe(request.num_prompt_tokens)
        self.num_output_tokens.observe(request.num_output_tokens)
        self.num_computed_tokens.observe(request.num_prompt_tokens - request.num_cached_tokens)
        self.num_preemptions.observe(request.num_preemptions)
        if request.max_tokens:
            self.max_tokens_param.observe(request.max_tokens)
        self._count_call(request)

    def _count_call(self, request: Request) -> None:
        """Count what all samples of a request share, with the last of them to end."""
        leader_id = request.parent_id or request.id
        num_open = self._num_open.pop(leader_id, len(request.samples)) - 1
        if num_open:
            self._num_open[leader_id] = num_open
            return
        self.n_param.observe(len(request.samples))
        self.max_output_tokens.observe(max(s.num_output_tokens for s in request.samples))

    def _count_prompt(self, request: Request) -> None:
        self.prompt_tokens += request.num_prompt_tokens
        self.cached_tokens += request.num_cached_tokens
        if self._asks_prefix_cache:
            self.queried_tokens += request.num_prompt_tokens

    def _observe_times(self, request: Request) -> None:
        scheduled_s, first_s = request.first_scheduled_s, request.first_token_s
        last_s, finished_s = request.last_token_s, request.finished_s
        for histogram, start_s, end_s in (
            (self.end_to_end_s, request.arrival_s, finished_s),
            (self.queue_s, request.queued_s, scheduled_s),
            (self.prefill_s, scheduled_s, first_s),
            (self.decode_s, first_s, last_s),
            (self.inference_s, scheduled_s, last_s),
        ):
            if start_s is not None and end_s is not None:
                histogram.observe(end_s - start_s)
        num_gaps = request.num_output_tokens - 1
        if num_gaps > 0 and first_s is not None and last_s is not None:
            self.per_output_token_s.observe((last_s - first_s) / num_gaps)
        if "grammar" in request.waits_s:
            self.grammar_wait_s.observe(request.waits_s["grammar"])
