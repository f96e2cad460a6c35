"""Whatever stands inside of input, tools and formats, nothing breaks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.test_hostile_fields import NASTY, is_proper
from toolkit.llm import LLM

PLACES: dict[str, Any] = {
    "an item": lambda value: {"input": [value]},
    "a type": lambda value: {"input": [{"type": value, "role": "user", "content": "a"}]},
    "a role": lambda value: {"input": [{"role": value, "content": "a"}]},
    "a content": lambda value: {"input": [{"role": "user", "content": value}]},
    "a part": lambda value: {"input": [{"role": "user", "content": [value]}]},
    "a text": lambda value: {
        "input": [{"role": "assistant", "content": [{"type": "output_text", "text": value}]}]
    },
    "an id": lambda value: {"input": [{"role": "user", "content": "a", "id": value}]},
    "a reference": lambda value: {"input": [{"type": "item_reference", "id": value}]},
    "reasoning": lambda value: {
        "input": [{"type": "reasoning", "summary": value, "content": [value]}]
    },
    "arguments": lambda value: {
        "input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": value}]
    },
    "an output": lambda value: {
        "input": [
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": value},
        ]
    },
    "a call's id": lambda value: {
        "input": [{"type": "function_call_output", "call_id": value, "output": "a"}]
    },
    "a tool": lambda value: {"tools": [value]},
    "a tool's name": lambda value: {"tools": [{"type": "function", "name": value}]},
    "parameters": lambda value: {
        "tools": [{"type": "function", "name": "f", "parameters": value}],
        "tool_choice": "required",
    },
    "a nested function": lambda value: {"tools": [{"type": "function", "function": value}]},
    "a choice": lambda value: {
        "tools": [{"type": "function", "name": "f"}],
        "tool_choice": {"type": "function", "name": value},
    },
    "allowed tools": lambda value: {
        "tools": [{"type": "function", "name": "f"}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": value},
    },
    "a format": lambda value: {"text": {"format": value}},
    "a format's type": lambda value: {"text": {"format": {"type": value}}},
    "a schema": lambda value: {
        "text": {"format": {"type": "json_schema", "name": "a", "schema": value}}
    },
    "an effort": lambda value: {"reasoning": {"effort": value}},
    "an option of streams": lambda value: {"stream": True, "stream_options": {"a": value}},
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_value_at_any_place_breaks_anything(http: httpx.Client, llm: LLM, place: str) -> None:
    bad = []
    for value in NASTY:
        body = {"model": "tiny", "input": "a", "max_output_tokens": 2, **PLACES[place](value)}
        answer = http.post("/v1/responses", json=body)
        if not is_proper(answer):
            bad.append(f"{value!r:.60}: {answer.status_code} {answer.text:.300}")
    assert not bad, "\n".join(bad)
    with llm.engine.paused():
        assert not llm.engine.scheduler.running
        llm.engine.cache.check()
