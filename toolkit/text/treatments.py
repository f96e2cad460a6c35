"""Ways to say the same conversation to a template that refuses it as it is.

Many templates demand one system message in front, or turns that alternate, or know no tool's
results. Each treatment gives way to one such demand, by joining messages; the order of the words
stays. They are tried from the gentlest on, since joining changes the prompt's beginning and with it
what the prefix cache can reuse.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from toolkit.text.messages import Message

__all__ = ["TREATMENTS", "Treatment", "calls_as_text", "needs_of", "tools_in_words"]

_SYSTEM = ("system", "developer")


class Treatment(NamedTuple):
    """One way to change a conversation, with what to tell about it."""

    does: str
    apply: Callable[[Sequence[Message]], list[Message]]


def ids_shortened(messages: Sequence[Message]) -> list[Message]:
    """Give calls ids of nine letters and digits, which is what Mistral's templates take."""
    return [_with_short_ids(message) for message in messages]


def system_in_front(messages: Sequence[Message]) -> list[Message]:
    """Join all system messages into one, in front of the others."""
    systems = [message for message in messages if message["role"] in _SYSTEM]
    others = [message for message in messages if message["role"] not in _SYSTEM]
    return [_joined(systems), *others] if systems else others


def turns_joined(messages: Sequence[Message]) -> list[Message]:
    """Join neighbours of one role; results of tools stay apart, one per call."""
    turns: list[list[Message]] = []
    for message in messages:
        role = message["role"]
        if turns and role == turns[-1][0]["role"] and role in ("user", "assistant"):
            turns[-1].append(message)
        else:
            turns.append([message])
    return [_joined(turn) for turn in turns]


def tools_in_turns(messages: Sequence[Message]) -> list[Message]:
    """Say calls in the assistant's words and tools' results in the user's."""
    return turns_joined([_without_tools(message) for message in messages])


def system_in_user_turn(messages: Sequence[Message]) -> list[Message]:
    """Say the system message at the beginning of the first user's turn."""
    front, *others = messages
    if front["role"] not in _SYSTEM:
        return list(messages)
    return turns_joined([{**front, "role": "user"}, *others])


# From the gentlest on; each is applied to what those before it made.
TREATMENTS = (
    Treatment("nothing was changed", list),
    Treatment("ids of calls were shortened", ids_shortened),
    Treatment("system messages were joined in front", system_in_front),
    Treatment("neighbours of one role were joined", turns_joined),
    Treatment("calls and results of tools were written as turns", tools_in_turns),
    Treatment("the system message was put into the first user turn", system_in_user_turn),
)


def needs_of(messages: Sequence[Message]) -> frozenset[str]:
    """Return what in a conversation a template may object to.

    Conversations with the same needs get the same treatment from a template.
    """
    roles = [message["role"] for message in messages]
    needs = {role for role in roles if role not in ("user", "assistant")}
    needs.add(f"begins with {roles[0]}")
    if any(role in _SYSTEM for role in roles[1:]):
        needs.add("late system")
    spoken = [role for role in roles if role not in _SYSTEM]
    if any(left == right for left, right in pairwise(spoken)):
        needs.add("repeats")
    if any("tool_calls" in message for message in messages):
        needs.add("calls")
    return frozenset(needs)


def calls_as_text(message: Message) -> Message:
    """Write a message's calls into its content, as JSON, one a line."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    lines = [message["content"]] if message["content"] else []
    lines += [
        json.dumps({key: call["function"][key] for key in ("name", "arguments")}, default=str)
        for call in calls
    ]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(lines)}


def tools_in_words(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """Describe the tools in a system message in front, for templates that do not show them."""
    described = "\n".join(json.dumps(tool.get("function", tool), default=str) for tool in tools)
    words = (
        "You may call these functions:\n"
        f"{described}\n"
        'To call one, answer with nothing but JSON: {"name": ..., "arguments": {...}}'
    )
    front = messages[0]
    if front["role"] in _SYSTEM:
        return [{**front, "content": f"{front['content']}\n\n{words}".lstrip()}, *messages[1:]]
    return [{"role": "system", "content": words}, *messages]


def _with_short_ids(message: Message) -> Message:
    changed = dict(message)
    if isinstance(message.get("tool_call_id"), str):
        changed["tool_call_id"] = _short_id(message["tool_call_id"])
    if "tool_calls" in message:
        changed["tool_calls"] = [
            {**call, "id": _short_id(call["id"])} if isinstance(call.get("id"), str) else call
            for call in message["tool_calls"]
        ]
    return changed


def _short_id(call_id: str) -> str:
    """Return the same nine letters and digits for the same id."""
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:9]


def _without_tools(message: Message) -> Message:
    if message["role"] in ("tool", "function"):
        name = message.get("name")
        result = f"Result of {name}: " if isinstance(name, str) else "Result of the tool: "
        return {"role": "user", "content": result + message["content"]}
    return calls_as_text(message)


def _joined(messages: Sequence[Message]) -> Message:
    """Join messages of one role; a blank line stands between their contents."""
    if len(messages) == 1:
        return messages[0]
    whole = {**messages[0]}
    whole["content"] = "\n\n".join(each["content"] for each in messages if each["content"])
    calls = [call for each in messages for call in each.get("tool_calls", ())]
    if calls:
        whole["tool_calls"] = calls
    return whole
