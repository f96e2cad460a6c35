"""From the fields of a body to SamplingParams: what is absent comes from the model's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import InvalidRequest
from toolkit.request import SamplingParams
from toolkit.server.protocol import ChatRequest, CompletionRequest, SamplingFields

__all__ = ["chat_params", "chat_template_options", "completion_params"]

_NAMES = tuple(SamplingFields.model_fields)
# OpenAI's and vLLM's default for completions; a chat may use the rest of the context.
_COMPLETION_TOKENS = 16


def chat_params(body: ChatRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """Return how to sample a chat's answer."""
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs=true", param="top_logprobs")
    _require_stream_for_options(body)
    _refuse_unwired(body)
    asked = body.max_completion_tokens
    return SamplingParams(
        **{**defaults, **_sampling_values(body)},
        max_tokens=asked if asked is not None else body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def completion_params(body: CompletionRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """Return how to sample a completion."""
    _require_stream_for_options(body)
    _refuse_unwired(body)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidRequest("best_of must equal n here", param="best_of")
    if body.max_tokens == 0:
        raise InvalidRequest("max_tokens must be at least 1, not 0", param="max_tokens")
    if body.echo and body.logprobs is not None:
        raise InvalidRequest(
            "echo with logprobs would need log-probabilities of the prompt, which are not "
            "computed here; leave one of them out",
            param="logprobs",
        )
    return SamplingParams(
        **{**defaults, **_sampling_values(body)},
        max_tokens=body.max_tokens if body.max_tokens is not None else _COMPLETION_TOKENS,
        logprobs=body.logprobs,
    )


def chat_template_options(body: ChatRequest) -> dict[str, Any]:
    """Return how to write a conversation out as a prompt, for ``Tokenizer.encode_chat``."""
    if body.tool_choice not in (None, "none", "auto"):
        raise InvalidRequest(
            "only tool_choice 'auto' and 'none' are supported: nothing here can force a call",
            param="tool_choice",
        )
    variables = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", body.reasoning_effort)
    return {
        "tools": None if body.tool_choice == "none" else body.tools,
        "add_generation_prompt": body.add_generation_prompt is not False,
        "continue_final_message": bool(body.continue_final_message),
        "template_kwargs": variables,
    }


# Declared, and not wired to the engine yet.
_UNWIRED = (
    "guided_choice guided_grammar guided_json guided_regex hooks processors "
    "prompt_logprobs return_token_ids return_tokens_as_token_ids structured_outputs "
    "truncate_prompt_tokens use_beam_search"
).split()


def _refuse_unwired(body: ChatRequest | CompletionRequest) -> None:
    for name in _UNWIRED:
        if getattr(body, name, None) and not (
            name == "echo" and isinstance(body, CompletionRequest)
        ):
            raise InvalidRequest(f"{name} is not supported here; leave it out", param=name)
    if body.response_format not in (None, {"type": "text"}):
        raise InvalidRequest("response_format is not supported here", param="response_format")


def _sampling_values(body: SamplingFields) -> dict[str, Any]:
    return {name: value for name in _NAMES if (value := getattr(body, name)) is not None}


def _require_stream_for_options(body: ChatRequest | CompletionRequest) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream=true", param="stream_options")
