"""The body of ``POST /v1/responses``: OpenAI's fields, and vLLM's that a chat has too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolkit.errors import InvalidRequest
from toolkit.server.protocol import Body, SamplingFields
from toolkit.server.protocol.types import (
    Arguments,
    CountOfTop,
    Flag,
    Object,
    Positive,
    Signed,
    Text,
    TextMetadata,
)

__all__ = ["Include", "ResponsesRequest", "require_supported"]

# OpenAI's list. The first is honoured; the others ask about what never comes here.
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Summary = Literal["auto", "concise", "detailed"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class TextOptions(_Part):
    """``text``: the form of the answer."""

    format: Object | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(_Part):
    """``reasoning``: the effort reaches the template; there are no summaries."""

    effort: Effort | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None


class ResponsesStreamOptions(_Part):
    """``stream_options``: nothing in it has an effect."""


class ResponsesRequest(SamplingFields, Body):
    """Input, and how the answer shall be."""

    input: Text | list[Any]
    instructions: Text | None = None
    previous_response_id: Text | None = None
    store: Flag | None = None
    truncation: Literal["auto", "disabled"] | None = None

    text: TextOptions | None = None
    structured_outputs: Object | None = None
    max_output_tokens: Positive | None = None
    top_logprobs: CountOfTop | None = None
    include: list[Include] | None = None
    stream: Flag | None = None
    stream_options: ResponsesStreamOptions | None = None

    tools: list[Any] | None = None
    tool_choice: Text | Object | None = None
    parallel_tool_calls: Flag | None = None
    max_tool_calls: Positive | None = None  # of tools that a server runs itself: there are none

    reasoning: ReasoningOptions | None = None
    chat_template_kwargs: Object | None = None

    # For the engine and its records.
    priority: Signed | None = None
    cache_salt: Annotated[Text, Field(min_length=1, max_length=1024)] | None = None
    metadata: TextMetadata | None = None
    vllm_xargs: Arguments | None = None
    processors: list[Text] | None = None
    hooks: list[Text] | None = None

    # Repeated in the answer; without effect.
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: ServiceTier | None = None

    # Declared for their neutral values, false and null.
    background: Any = None
    context_management: Any = None
    conversation: Any = None
    moderation: Any = None
    prompt: Any = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the texts of the answer come with log-probabilities."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    @property
    def is_stored(self) -> bool:
        """Whether the answer can be found by its id afterwards."""
        return self.store is not False


# What would change the answer, and why it does not.
_UNSUPPORTED: Mapping[str, str] = {
    "background": "answers are made while their call lasts: leave it out, or false",
    "context_management": "histories are not summarised: use truncation='auto' to drop old items",
    "conversation": "there are no conversation objects here: use previous_response_id",
    "moderation": "answers are not moderated here",
    "prompt": "there are no prompt templates here: write input and instructions",
}
# Fields of other endpoints, and what stands for them here.
_ELSEWHERE: Mapping[str, str] = {
    "functions": "use tools",
    "max_completion_tokens": "this endpoint calls it max_output_tokens",
    "max_tokens": "this endpoint calls it max_output_tokens",
    "messages": "this endpoint calls it input",
    "reasoning_effort": "this endpoint has it in reasoning.effort",
    "response_format": "this endpoint has it in text.format",
}


def require_supported(body: ResponsesRequest) -> None:
    """Refuse what this endpoint does not do.

    Raises:
        InvalidRequest: a field asks for it; ``.param`` names the field.
    """
    sent = {**(body.model_extra or {}), **{name: getattr(body, name) for name in _UNSUPPORTED}}
    for name, reason in {**_UNSUPPORTED, **_ELSEWHERE}.items():
        if sent.get(name) not in (None, False):
            raise InvalidRequest(f"{name} is not supported: {reason}", param=name)
    if body.n not in (None, 1):
        raise InvalidRequest(f"n={body.n}: a response is one answer", param="n")
    if body.prompt_logprobs is not None:
        raise InvalidRequest(
            "prompt_logprobs: a response has none; use /v1/chat/completions",
            param="prompt_logprobs",
        )
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream=true", param="stream_options")
