"""What a conversation may look like."""

from __future__ import annotations

import json
from typing import Any

from toolkit.conformance.check import Points
from toolkit.conformance.probe import CHAT, Probe
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("messages")
_USER = {"role": "user", "content": "Hello!"}
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
}


def _accepted(probe: Probe, messages: list[dict[str, Any]]) -> None:
    answer = probe.chat(messages=messages, max_tokens=4)
    expect(answer["choices"][0]["message"]["role"] == "assistant", "no answer", answer)


@POINTS.must(
    "parts",
    what="content may be a list of text parts",
    why="LangChain, the Vercel AI SDK and Cline send parts (vllm issue 54486)",
)
def _parts(probe: Probe) -> None:
    parts = [{"type": "text", "text": "Hello,"}, {"type": "text", "text": " world!"}]
    _accepted(probe, [{"role": "user", "content": parts}])


@POINTS.must(
    "two_systems",
    what="two system messages are accepted",
    why="agents add instructions in the middle; templates that allow one must not break them",
)
def _two_systems(probe: Probe) -> None:
    _accepted(
        probe,
        [
            {"role": "system", "content": "Be brief."},
            _USER,
            {"role": "assistant", "content": "Hi."},
            {"role": "system", "content": "Be kind."},
            _USER,
        ],
    )


@POINTS.must(
    "repeated_role",
    what="two user messages in a row are accepted",
    why="chat histories do not alternate; a 400 or 500 ends the conversation (vllm issue 6862)",
)
def _repeated(probe: Probe) -> None:
    _accepted(probe, [_USER, {"role": "user", "content": "Are you there?"}])


@POINTS.must(
    "starts_with_assistant",
    what="a history may begin with the assistant",
    why="greetings; histories whose beginning was cut off",
)
def _assistant_first(probe: Probe) -> None:
    _accepted(probe, [{"role": "assistant", "content": "How can I help?"}, _USER])


@POINTS.must(
    "tool_turn",
    what="an assistant turn with tool calls and null content is accepted",
    why="LangChain sends content: null and tool turns without a name",
)
def _tool_turn(probe: Probe) -> None:
    _accepted(
        probe,
        [
            _USER,
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        ],
    )


@POINTS.should(
    "developer",
    what='the role "developer" is accepted',
    why="openai's newer examples use it in place of system",
)
def _developer(probe: Probe) -> None:
    _accepted(probe, [{"role": "developer", "content": "Be brief."}, _USER])


@POINTS.should("name", what="messages may carry a name", why="LangChain sends it for named authors")
def _name(probe: Probe) -> None:
    _accepted(probe, [{**_USER, "name": "ada"}])


@POINTS.should(
    "unknown_role",
    what="an unknown role is a 400",
    why="a misspelt role would silently change the prompt",
)
def _unknown_role(probe: Probe) -> None:
    messages = [{"role": "wizard", "content": "Hello!"}]
    answer = probe.post(CHAT, probe.chat_body({"messages": messages}))
    expect(answer.status in (400, 422), f"status {answer.status}", answer.text)
    expect(answer.error, "no error object", answer.text)


@POINTS.must(
    "unicode",
    what="emoji, scripts of all directions and escaped surrogate pairs are accepted",
    why="clients escape characters beyond the basic plane as two surrogates",
)
def _unicode(probe: Probe) -> None:
    text = "naïve 日本語 שלום \U0001f469‍\U0001f4bb \U0001d11e"
    _accepted(probe, [{"role": "user", "content": text}])  # httpx writes it as UTF-8
    body = b'{"model": %s, "max_tokens": 4, "messages": [{"role": "user", "content": "%s"}]}'
    escaped = text.encode("utf-16-be")
    units = b"".join(
        b"\\u%04x" % int.from_bytes(escaped[i : i + 2], "big") for i in range(0, len(escaped), 2)
    )
    probe.ok(probe.post(CHAT, body % (json.dumps(probe.model).encode(), units)))
