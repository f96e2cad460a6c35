"""Bring the messages of OpenAI's API, in all their spellings, into the one that templates expect.

What no template could take is refused here, with the place in ``param``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import InvalidRequest

__all__ = ["ROLES", "Message", "normal_messages"]

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# Where each kind of part keeps its text.
_TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}


def normal_messages(messages: Any) -> list[Message]:
    """Return the messages with content as text, and with calls whose arguments are objects.

    Null content becomes empty text, ``function_call`` one of ``tool_calls``. The messages given are
    not changed.

    Raises:
        InvalidRequest: a message has a role, a content or a call that no template takes.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidRequest("messages must be a list of messages", param="messages")
    if not messages:
        raise InvalidRequest("messages is empty: give at least one message", param="messages")
    normal = [_normal(message, f"messages[{index}]") for index, message in enumerate(messages)]
    return _with_names(normal)


def _normal(message: Any, place: str) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{place} must be an object with a role", param=place)
    if message["role"] not in ROLES:
        raise InvalidRequest(
            f"{place}.role is {message['role']!r:.40}; it must be one of {', '.join(ROLES)}",
            param=f"{place}.role",
        )
    # Null is the same as absent: templates ask whether a field is there.
    normal = {key: value for key, value in message.items() if value is not None}
    normal["content"] = _text(message.get("content"), f"{place}.content")
    calls = _calls(message, place)
    for field in ("function_call", "tool_calls"):
        normal.pop(field, None)
    if calls:
        normal["tool_calls"] = calls
    if not normal["content"] and isinstance(message.get("refusal"), str):
        normal["content"] = message["refusal"]
    if isinstance(message.get("reasoning"), str):  # vLLM's newer name; templates read the older
        normal.setdefault("reasoning_content", message["reasoning"])
    return normal


def _with_names(messages: list[Message]) -> list[Message]:
    """Name the functions whose results tool messages hold: OpenAI's clients send only call ids."""
    names: dict[Any, str] = {}
    named = []
    for message in messages:
        for call in message.get("tool_calls", ()):
            if isinstance(call.get("id"), str):
                names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and "name" not in message:
            call_id = message.get("tool_call_id")
            name = names.get(call_id) if isinstance(call_id, str) else None
            message = {**message, "name": name} if name is not None else message
        named.append(message)
    return named


def _text(content: Any, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise InvalidRequest(f"{place} must be text, or a list of text parts", param=place)
    return "".join(_part_text(part, f"{place}[{index}]") for index, part in enumerate(content))


def _part_text(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise InvalidRequest(f"{place} must be a part: an object with a type", param=place)
    kind = part.get("type", "text")
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        raise InvalidRequest(
            f"{place} is of type {kind!r:.40}; only text parts are supported here "
            f"({', '.join(_TEXT_PARTS)})",
            param=place,
        )
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise InvalidRequest(f"{place}.{_TEXT_PARTS[kind]} must be text", param=place)
    return text


def _calls(message: Mapping[str, Any], place: str) -> list[Message]:
    calls = message.get("tool_calls")
    if calls is not None and (isinstance(calls, (str, Mapping)) or not isinstance(calls, Sequence)):
        raise InvalidRequest(
            f"{place}.tool_calls must be a list of function calls", param=f"{place}.tool_calls"
        )
    normal = [
        _call(call, f"{place}.tool_calls[{index}]", f"{place}.tool_calls")
        for index, call in enumerate(calls or ())
    ]
    legacy = message.get("function_call")
    if legacy is not None:
        spot = f"{place}.function_call"
        normal.append(_call({"function": legacy}, spot, spot))
    return normal


def _call(call: Any, place: str, param: str) -> Message:
    """Return a call as ``{"type": "function", "function": {"name", "arguments"}}`` and more."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequest(
            f"{place} must be a call of a function: "
            '{"type": "function", "function": {"name": ..., "arguments": ...}}',
            param=param,
        )
    arguments = _arguments(function.get("arguments"))
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}


def _arguments(arguments: Any) -> Any:
    """Return the object that templates print; what is not JSON is shown as it was written.

    OpenAI sends JSON in a string. "null" and nothing at all are calls without arguments.
    """
    if isinstance(arguments, str):
        # RecursionError: JSON that is nested deeper than any template could print.
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments) if arguments.strip() else {}
    return {} if arguments is None else arguments
