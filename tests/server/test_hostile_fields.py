"""Whatever stands in a field, the answer is an answer or an error in OpenAI's shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from toolkit.llm import LLM
from toolkit.server import Server
from toolkit.server.protocol import (
    HARMLESS,
    REFUSED,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from toolkit.server.responses.protocol import ResponsesRequest

BODIES: dict[str, tuple[type, dict[str, Any]]] = {
    "/v1/completions": (CompletionRequest, {"prompt": "a", "max_tokens": 2}),
    "/v1/chat/completions": (
        ChatRequest,
        {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    ),
    "/v1/responses": (ResponsesRequest, {"input": "a", "max_output_tokens": 2}),
    "/tokenize": (TokenizeRequest, {"prompt": "a"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [65]}),
}
NASTY: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1.5,
    -0.0,
    1e-300,
    1e308,
    10**30,
    -(10**30),
    2**63,
    "",
    "a",
    "\x00",
    "\U0001f642",
    "\u202e" * 50,
    "x" * 5000,
    "{{ 1 / 0 }}",
    [],
    [None],
    [True],
    [0],
    [-1],
    [2**63],
    [[]],
    [[[]]],
    ["a", 1],
    [""],
    ["a"] * 3000,
    {},
    {"": None},
    {"type": None},
    {"a": {"b": [{"c": []}]}},
    {"0": 1e308},
    {"-1": 1},
    {"type": "function", "function": {"name": ""}},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}},
]


@pytest.mark.slow
@pytest.mark.parametrize("path", BODIES)
def test_no_value_of_any_field_breaks_anything(
    http: httpx.Client, server: Server, llm: LLM, path: str
) -> None:
    kind, body = BODIES[path]
    names = [*kind.model_fields, *REFUSED, *HARMLESS, "unknown"]  # type: ignore[attr-defined]
    bad = []
    for name in names:
        for value in NASTY:
            answer = http.post(path, json=body | {name: value})
            if not is_proper(answer):
                bad.append(f"{name}={value!r:.60}: {answer.status_code} {answer.text:.300}")
    assert not bad, "\n".join(bad)
    with llm.engine.paused():
        assert not llm.engine.scheduler.running
        assert not llm.engine.scheduler.waiting
        llm.engine.cache.check()


def is_proper(answer: httpx.Response) -> bool:
    """Whether it is an answer, or an error that names a field and is short enough to read."""
    if answer.status_code == 200:
        return True
    if answer.status_code not in (400, 404):
        return False
    error = answer.json()["error"]
    is_whole = set(error) == {"message", "type", "param", "code"}
    return is_whole and bool(error["param"]) and len(error["message"]) < 1500
