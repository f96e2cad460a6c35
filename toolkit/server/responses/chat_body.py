"""From the body of a response to that of a chat, which decides how it is answered.

Both endpoints ask for the same things in other words. Errors about a chat's fields are told in
the words of this endpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from toolkit.errors import InvalidRequest, PromptTooLong
from toolkit.server.protocol import ChatRequest, SamplingFields
from toolkit.server.responses.protocol import ResponsesRequest

__all__ = ["as_chat", "in_words_of_responses"]

# Fields with one name and meaning in both.
_SAME = (
    *SamplingFields.model_fields,
    "model",
    "user",
    "structured_outputs",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "priority",
    "cache_salt",
    "metadata",
    "vllm_xargs",
    "processors",
    "hooks",
)
_FORMATS = ("text", "json_object", "json_schema")
# What a chat calls its fields, and what they are here; the longest names first.
_WORDS = (
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
    ("messages", "input"),
    ("reasoning_effort", "reasoning.effort"),
    (".function", ""),
)


def as_chat(body: ResponsesRequest, messages: Sequence[Mapping[str, Any]]) -> ChatRequest:
    """Return the chat that asks for the same answer.

    Args:
        body: Says how to answer.
        messages: The whole conversation.

    Raises:
        InvalidRequest: a tool, the choice of tools or a format has a shape that no chat has.
    """
    fields = {name: getattr(body, name) for name in _SAME}
    effort = body.reasoning.effort if body.reasoning is not None else None
    return ChatRequest.model_validate(
        {
            **fields,
            "messages": list(messages),
            "max_completion_tokens": body.max_output_tokens,
            "logprobs": body.wants_logprobs,
            "top_logprobs": body.top_logprobs if body.wants_logprobs else None,
            "tools": _tools(body.tools),
            "tool_choice": _tool_choice(body.tool_choice),
            "response_format": _response_format(body),
            "reasoning_effort": effort,
        }
    )


@contextmanager
def in_words_of_responses() -> Iterator[None]:
    """Let errors about a chat name the field of this endpoint."""
    try:
        yield
    except InvalidRequest as error:
        kind = PromptTooLong if isinstance(error, PromptTooLong) else InvalidRequest
        param = None if error.param is None else _translated(error.param)
        raise kind(_translated(str(error)), param=param) from error


def _translated(text: str) -> str:
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    return text


def _tools(tools: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """Return functions as chats have them: one level deeper."""
    if tools is None:
        return None
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _tool(tool: Any, place: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if kind != "function":
        raise InvalidRequest(
            f"{place} is of type {kind!r:.60}; this server runs no tools of its own, it calls the "
            "functions of its clients: give tools of type 'function'",
            param=place,
        )
    if isinstance(tool.get("function"), Mapping):  # written as for a chat
        return dict(tool)
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool.get(name) for name in names}}


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    kind = choice.get("type")
    if kind == "function" and "function" not in choice:
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind == "allowed_tools" and "allowed_tools" not in choice:
        listed = choice.get("tools")
        if not isinstance(listed, list):
            raise InvalidRequest("tool_choice.tools must be a list of tools", param="tool_choice")
        allowed = {"mode": choice.get("mode"), "tools": [_tool_choice(each) for each in listed]}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return choice


def _response_format(body: ResponsesRequest) -> dict[str, Any] | None:
    asked = body.text.format if body.text is not None else None
    if asked is None:
        return None
    kind = asked.get("type")
    if kind not in _FORMATS:
        raise InvalidRequest(
            f"text.format.type is {kind!r:.40}; it must be one of {', '.join(_FORMATS)}",
            param="text.format",
        )
    if kind != "json_schema":
        return {"type": kind}
    schema = asked.get("json_schema", asked)  # or written as for a chat
    if not isinstance(schema, Mapping) or not isinstance(schema.get("schema"), dict):
        raise InvalidRequest(
            'text.format must hold the schema: {"type": "json_schema", "name": ..., "schema": ...}',
            param="text.format.schema",
        )
    if not isinstance(schema.get("description"), (str, type(None))):
        raise InvalidRequest("text.format.description must be text", param="text.format")
    names = ("name", "description", "schema", "strict")
    return {"type": kind, "json_schema": {name: schema.get(name) for name in names}}
