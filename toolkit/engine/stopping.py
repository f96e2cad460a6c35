"""Decide whether a sampled token is a request's last."""

from __future__ import annotations

from toolkit.engine.plan import SampledToken
from toolkit.request import FinishReason, Request

__all__ = ["append_token", "sure_length"]


def sure_length(request: Request, max_model_len: int) -> int:
    """Return the number of tokens below which no sampled token can end a request.

    0 where a token's id, its text or what is known of it matters, so that each must be looked at.
    """
    params = request.params
    is_plain = (
        request.text is None
        and request.logprobs is None
        and request.beam is None
        and request.pooling is None
        and not params.stop_token_ids
        and params.structured_outputs is None
        and (params.ignore_eos or not request.eos_token_ids)
    )
    return min(request.num_prompt_tokens + request.max_tokens, max_model_len) if is_plain else 0


def append_token(
    request: Request, sampled: SampledToken, max_model_len: int
) -> FinishReason | None:
    """Append an output token and return why the request ends with it, or None.

    A stop token stays in the token ids but not in the text, as in vLLM. ``min_tokens`` is vLLM's
    too: that many tokens come before a stop string is completed, and one that was complete by then
    does not count later. End-of-sequence and stop tokens among them are the sampler's to exclude;
    drawn all the same (by a processor, or as the last of them), they end nothing before their
    number reaches ``min_tokens``. A token that completes the request's grammar ends it in any case.
    """
    token_id = sampled.token_id
    params = request.params
    request.token_ids.append(token_id)
    num_output = request.num_output_tokens
    if sampled.logprobs is not None and request.logprobs is not None:
        request.logprobs.append(sampled.logprobs)
        request.cumulative_logprob += sampled.logprobs[token_id].logprob
    may_stop = num_output >= params.min_tokens
    reason: FinishReason | None = None
    is_eos = token_id in request.eos_token_ids and not params.ignore_eos
    if may_stop and (is_eos or token_id in (params.stop_token_ids or ())):
        reason = FinishReason.STOP
        request.stop_reason = None if is_eos else token_id
    if request.text is not None and (reason is None or params.include_stop_str_in_output):
        is_past_minimum = num_output > params.min_tokens
        stop_string = request.text.push(token_id, check_stop=is_past_minimum)
        if stop_string is not None and reason is None:
            reason = FinishReason.STOP
            request.stop_reason = stop_string
    if reason is None and (num_output >= request.max_tokens or request.num_tokens >= max_model_len):
        reason = FinishReason.LENGTH
    return FinishReason.STOP if sampled.is_last else reason
