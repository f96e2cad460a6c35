"""The items that a conversation consists of: checked, completed, turned into messages of a chat.

An item is a mapping in OpenAI's shape. What a client sends may leave much out; what is stored and
listed is complete, and valid as OpenAI's types for items.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from toolkit.errors import InvalidRequest

__all__ = ["Item", "as_items", "as_messages", "new_id", "require_known_calls"]

Item = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_KINDS = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
# Where each kind of part keeps its text.
_TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "refusal": "refusal",
}


def new_id(prefix: str) -> str:
    """Return an id that nobody else has, as ``msg_...``."""
    return f"{prefix}_{secrets.token_hex(16)}"


def as_items(sent: str | Sequence[Any], find: Callable[[str], Item | None]) -> list[Item]:
    """Return what a client sent as ``input`` as complete items.

    Args:
        sent: Text, which is a message of the user's, or items.
        find: Returns a stored item by its id.

    Raises:
        InvalidRequest: an item is wrong, or of a kind that is not supported; ``.param`` says where.
    """
    if isinstance(sent, str):
        sent = [{"role": "user", "content": sent}]
    return [_item(each, f"input[{index}]", find) for index, each in enumerate(sent)]


def require_known_calls(items: Iterable[Item]) -> None:
    """Refuse a conversation with the output of a call that nobody made.

    Raises:
        InvalidRequest: it has one; ``.param`` is "input".
    """
    known = set()
    for item in items:
        if item["type"] == "function_call":
            known.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in known:
            raise InvalidRequest(
                f"no tool call found for function call output with call_id {item['call_id']!r:.80}:"
                " send the item of the call before it, or previous_response_id",
                param="input",
            )


def as_messages(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return the conversation as messages of a chat; reasoning is left out, as models expect."""
    messages: list[dict[str, Any]] = []
    for item in items:
        if item["type"] == "message":
            messages.append({"role": item["role"], "content": _joined(item["content"])})
        elif item["type"] == "function_call":
            # Calls belong to the assistant's message before them; chats have them in one.
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            messages[-1].setdefault("tool_calls", []).append(call)
        elif item["type"] == "function_call_output":
            output = item["output"]
            content = output if isinstance(output, str) else _joined(output)
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
    return messages


def _item(sent: Any, place: str, find: Callable[[str], Item | None]) -> Item:
    if not isinstance(sent, Mapping):
        raise InvalidRequest(f"{place} must be an item: an object", param=place)
    kind = sent.get("type")
    if kind is None:
        kind = "message" if "role" in sent else "item_reference"
    if kind == "message":
        return _message(sent, place)
    if kind == "function_call":
        return _call(sent, place)
    if kind == "function_call_output":
        return _call_output(sent, place)
    if kind == "reasoning":
        return _reasoning(sent, place)
    if kind == "item_reference":
        return _referenced(sent, place, find)
    raise InvalidRequest(
        f"{place} is of type {kind!r:.60}; supported here are {', '.join(_KINDS)}", param=place
    )


def _message(sent: Mapping[str, Any], place: str) -> Item:
    role = sent.get("role")
    if role not in _ROLES:
        raise InvalidRequest(
            f"{place}.role is {role!r:.40}; it must be one of {', '.join(_ROLES)}",
            param=f"{place}.role",
        )
    texts = _texts(sent.get("content"), f"{place}.content")
    item: Item = {"id": _id(sent, "msg", place), "type": "message"}
    if role != "assistant":
        parts: list[Item] = [{"type": "input_text", "text": text} for _, text in texts]
        return {**item, "status": "completed", "role": role, "content": parts}
    parts = [
        {"type": "refusal", "refusal": text}
        if kind == "refusal"
        else {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        for kind, text in texts
    ]
    return {**item, "status": _status(sent), "role": role, "content": parts}


def _call(sent: Mapping[str, Any], place: str) -> Item:
    return {
        "id": _id(sent, "fc", place),
        "type": "function_call",
        "status": _status(sent),
        "call_id": _text(sent, "call_id", place),
        "name": _text(sent, "name", place),
        "arguments": _text(sent, "arguments", place),
    }


def _call_output(sent: Mapping[str, Any], place: str) -> Item:
    output = sent.get("output")
    if not isinstance(output, str):
        texts = _texts(output, f"{place}.output")
        output = [{"type": "input_text", "text": text} for _, text in texts]
    return {
        "id": _id(sent, "fco", place),
        "type": "function_call_output",
        "status": _status(sent),
        "call_id": _text(sent, "call_id", place),
        "output": output,
    }


def _reasoning(sent: Mapping[str, Any], place: str) -> Item:
    """Keep a block of reasoning in the list of items; no model gets to see it."""
    item: Item = {"id": _id(sent, "rs", place), "type": "reasoning"}
    for field, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        parts = sent.get(field)
        listed = parts if isinstance(parts, Sequence) and not isinstance(parts, str) else ()
        item[field] = [
            {"type": kind, "text": part["text"]}
            for part in listed
            if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        ]
    return item


def _referenced(sent: Mapping[str, Any], place: str, find: Callable[[str], Item | None]) -> Item:
    item_id = _text(sent, "id", place)
    found = find(item_id)
    if found is None:
        raise InvalidRequest(
            f"{place}: there is no item {item_id!r:.80} in the stored responses; send the item "
            "itself",
            param=place,
        )
    return found


def _texts(content: Any, place: str) -> list[tuple[str, str]]:
    """Return the texts of a content, each with the kind of part it stood in."""
    if isinstance(content, str):
        return [("text", content)]
    if not isinstance(content, Sequence):
        raise InvalidRequest(f"{place} must be text, or a list of parts", param=place)
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: Any, place: str) -> tuple[str, str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        raise InvalidRequest(
            f"{place} is of type {kind!r:.40}; this server reads text only: "
            f"{', '.join(_TEXT_PARTS)}",
            param=place,
        )
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise InvalidRequest(f"{place}.{_TEXT_PARTS[kind]} must be text", param=place)
    return kind, text


def _joined(parts: Iterable[Mapping[str, Any]]) -> str:
    return "".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in parts)


def _text(sent: Mapping[str, Any], field: str, place: str) -> str:
    value = sent.get(field)
    if not isinstance(value, str) or (field != "arguments" and not value):
        raise InvalidRequest(f"{place}.{field} must be text", param=f"{place}.{field}")
    return value


def _id(sent: Mapping[str, Any], prefix: str, place: str) -> str:
    """Return the id that an item came with, or a new one."""
    if sent.get("id") is None:
        return new_id(prefix)
    return _text(sent, "id", place)


def _status(sent: Mapping[str, Any]) -> str:
    return "incomplete" if sent.get("status") == "incomplete" else "completed"
