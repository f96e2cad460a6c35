"""What text and chat completions share: how to sample, what comes back, who asks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolkit.server.protocol.body import Body
from toolkit.server.protocol.types import (
    MAX_INT,
    Arguments,
    CountOfTop,
    Flag,
    Int,
    Metadata,
    Number,
    Object,
    Positive,
    Signed,
    Text,
    TokenIds,
    TopK,
)

__all__ = ["AnswerRequest", "SamplingFields", "StreamOptions"]


class StreamOptions(BaseModel):
    """How a stream reports usage."""

    model_config = ConfigDict(extra="allow")

    include_usage: Flag | None = None
    continuous_usage_stats: Flag | None = None


class SamplingFields(BaseModel):
    """The fields whose names and meanings are those of ``SamplingParams``; null is "not sent"."""

    n: Positive | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: TopK | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    repetition_penalty: Number | None = None
    seed: Signed | None = None
    stop: Text | list[Text] | None = None
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: Flag | None = None
    ignore_eos: Flag | None = None
    min_tokens: Annotated[Int, Field(ge=0, le=MAX_INT)] | None = None
    skip_special_tokens: Flag | None = None
    logit_bias: dict[int, Number] | None = None
    allowed_token_ids: TokenIds | None = None
    # Each becomes tokens, in two ways, and is looked at in every step.
    bad_words: Annotated[list[Text], Field(max_length=4096)] | None = None
    prompt_logprobs: CountOfTop | None = None


class AnswerRequest(SamplingFields, Body):
    """The fields of a body that asks for tokens, whatever the endpoint."""

    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    use_beam_search: Flag | None = None
    length_penalty: Number | None = None

    # What the text must look like: one of these.
    response_format: Object | None = None
    structured_outputs: Object | None = None
    guided_json: Text | Object | None = None
    guided_json_object: Flag | None = None
    guided_regex: Text | None = None
    guided_choice: list[Text] | None = None
    guided_grammar: Text | None = None
    guided_whitespace_pattern: Text | None = None

    # How the prompt becomes tokens.
    add_special_tokens: Flag | None = None
    # -1: as many as leave room for the answer.
    truncate_prompt_tokens: Annotated[Int, Field(ge=-1, le=MAX_INT)] | None = None
    truncation_side: Literal["left", "right"] | None = None

    # What comes back beside the text.
    echo: Flag | None = None
    return_token_ids: Flag | None = None
    return_tokens_as_token_ids: Flag | None = None

    # For the engine and its records.
    priority: Signed | None = None
    cache_salt: Annotated[Text, Field(min_length=1, max_length=1024)] | None = None
    metadata: Metadata | None = None
    vllm_xargs: Arguments | None = None
    processors: list[Text] | None = None
    hooks: list[Text] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_continuous_usage(self) -> bool:
        """Whether every chunk of the stream holds the usage so far."""
        options = self.stream_options
        return self.wants_usage and options is not None and bool(options.continuous_usage_stats)

    @property
    def tags(self) -> dict[str, Any]:
        """What policies, processors and tables see of the caller; ``metadata`` wins."""
        user = {"user": self.user} if self.user is not None else {}
        return {**(self.vllm_xargs or {}), **user, **(self.metadata or {})}
