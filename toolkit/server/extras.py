"""What answers hold beyond OpenAI's specification: by endpoint, each with the reason it is there.

Everything else in an answer is a field of the ``openai`` package's types, and none of their fields
is missing that OpenAI sends. A place is written like ``choices[].stop_reason``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EXTRAS", "NULLS"]

_STOP = "vLLM's: the stop string or the stop token that ended the text; null for any other end"
_TOKENS = "vLLM's, with return_token_ids: the tokens behind the text"
_PROMPT_TOKENS = "vLLM's, with return_token_ids: the prompt as tokens; in a stream, sent first"
_REASONING = "vLLM's, of models that reason: what they thought, under its older and newer name"
_PROMPT_LOGPROBS = "vLLM's, with prompt_logprobs: by prompt token, null for the first"

EXTRAS: Mapping[str, Mapping[str, str]] = {
    "/v1/chat/completions": {
        "choices[].stop_reason": _STOP,
        "choices[].token_ids": _TOKENS,
        "choices[].message.reasoning_content": _REASONING,
        "choices[].message.reasoning": _REASONING,
        "choices[].delta.reasoning_content": _REASONING,
        "choices[].delta.reasoning": _REASONING,
        "prompt_token_ids": _PROMPT_TOKENS,
        "prompt_logprobs": _PROMPT_LOGPROBS,
    },
    "/v1/completions": {
        "choices[].stop_reason": _STOP,
        "choices[].token_ids": _TOKENS,
        "choices[].prompt_token_ids": _PROMPT_TOKENS,
        "choices[].prompt_logprobs": _PROMPT_LOGPROBS,
    },
    "/v1/models": {
        "data[].root": "vLLM's: the folder or hub id of the weights",
        "data[].parent": "vLLM's: what an adapter belongs to; null",
        "data[].max_model_len": "vLLM's: tokens of prompt and answer together",
    },
}

# Values that OpenAI sends and its package's types do not allow: by endpoint, null at these places.
NULLS: Mapping[str, Mapping[str, str]] = {
    "/v1/completions": {
        "choices[].finish_reason": "in a stream, until the last chunk of the choice",
        "choices[].logprobs.token_logprobs[]": "with echo, the first token: nothing predicts it",
        "choices[].logprobs.top_logprobs[]": "with echo, the first token: nothing predicts it",
    },
}
