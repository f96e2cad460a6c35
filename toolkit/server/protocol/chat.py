"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict
from typing_extensions import Required, TypedDict  # pydantic needs this one before Python 3.12

from toolkit.server.protocol.sampling import AnswerRequest
from toolkit.server.protocol.types import CountOfTop, Flag, Object, Text

__all__ = ["ChatRequest", "Message"]


class Message(TypedDict, total=False):
    """A turn of a conversation; the template may read further fields."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    role: Required[Text]
    content: Any
    tool_calls: list[Object] | None


class ChatRequest(AnswerRequest):
    """A conversation, and how it shall go on."""

    messages: list[Message]
    logprobs: Flag | None = None
    top_logprobs: CountOfTop | None = None

    tools: list[Object] | None = None
    tool_choice: Text | Object | None = None
    parallel_tool_calls: Flag | None = None

    reasoning_effort: Text | None = None
    include_reasoning: Flag | None = None

    add_generation_prompt: Flag | None = None
    continue_final_message: Flag | None = None
    chat_template_kwargs: Object | None = None
    documents: list[Object] | None = None
