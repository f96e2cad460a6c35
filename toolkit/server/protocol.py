"""What clients may send: OpenAI's fields and vLLM's, with the types that are accepted.

Fields that would change the answer but are not supported are refused by name; fields nobody knows
are accepted and named in a header of the answer.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt
from typing_extensions import Required, TypedDict  # pydantic needs this one before Python 3.12

from toolkit.errors import InvalidRequest
from toolkit.sampling_params import MAX_LOGPROBS

__all__ = ["ChatRequest", "CompletionRequest", "SamplingFields", "StreamOptions", "ignored_fields"]

# OpenAI's limit; each sample is a request of the engine.
MAX_SAMPLES = 128

TokenIds = list[Annotated[StrictInt, Field(ge=0)]]
# What a seeded generator takes.
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
# Any vocabulary is smaller; larger numbers do not fit the tensors that carry them.
TopK = Annotated[int, Field(ge=-1, le=2**31 - 1)]


class Message(TypedDict, total=False):
    """A turn of a conversation; the template may read further fields."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    role: Required[str]
    content: Any
    tool_calls: list[dict[str, Any]] | None


class StreamOptions(BaseModel):
    """How a stream reports usage."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class SamplingFields(BaseModel):
    """The fields whose names and meanings are those of ``SamplingParams``; null is "not sent"."""

    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: TopK | None = None
    min_p: float | None = None
    typical_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    skip_special_tokens: bool | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: TokenIds | None = None
    bad_words: list[str] | None = None


class _AnswerRequest(SamplingFields):
    """What chat and text completions share."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = None
    cache_salt: Annotated[str, Field(min_length=1)] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def wants_continuous_usage(self) -> bool:
        """Whether every chunk of the stream holds the usage so far."""
        options = self.stream_options
        return options is not None and options.include_usage and options.continuous_usage_stats

    @property
    def tags(self) -> dict[str, Any]:
        """What policies, processors and tables see of the caller."""
        return ({"user": self.user} if self.user is not None else {}) | (self.metadata or {})


class ChatRequest(_AnswerRequest):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[Message]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(_AnswerRequest):
    """The body of ``POST /v1/completions``."""

    prompt: str | list[str] | TokenIds | list[TokenIds]
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    add_special_tokens: bool | None = None


# Fields that change nothing in the text: they concern accounts, billing and hints.
_HARMLESS = frozenset(
    "include_reasoning parallel_tool_calls prediction prompt_cache_key prompt_cache_retention "
    "request_id safety_identifier service_tier store verbosity".split()
)
# Known fields that are not supported, each with the values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "beam_width": (),
    "chat_template": (),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "hooks": ([],),
    "length_penalty": (1.0,),
    "logits_processors": ([],),
    "modalities": (["text"],),
    "processors": ([],),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "spaces_between_special_tokens": (True,),
    "structured_outputs": (),
    "suffix": ("",),
    "thinking_token_budget": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "web_search_options": (),
}


def ignored_fields(body: ChatRequest | CompletionRequest) -> list[str]:
    """Return the fields that nobody knows; they have no effect.

    Raises:
        InvalidRequest: a field is known, changes the answer and is not supported.
    """
    unknown = []
    for name, value in (body.model_extra or {}).items():
        if name in _UNSUPPORTED:
            if value is not None and value not in _UNSUPPORTED[name]:
                raise InvalidRequest(f"{name} is not supported here; leave it out", param=name)
        elif name not in _HARMLESS:
            unknown.append(name)
    return unknown
