"""Answers have the fields of openai's types, none missing, and documented extras alone."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import httpx
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ValidationError

from tests.server.strictness import require_strict
from tests.server.test_errors import CHAT, COMPLETION

COMPLETIONS = "/v1/completions"
CHATS = "/v1/chat/completions"
ALL = {"return_token_ids": True, "ignore_eos": True, "temperature": 0.5, "seed": 1}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"n": 2},
    {"logprobs": 1},
    {"echo": True, "logprobs": 1},
    {"echo": True, "max_tokens": 0, "logprobs": 1},
    ALL,
    ALL | {"n": 2, "logprobs": 0, "stop": "e"},
]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("fields", "usage"), list(product(VARIANTS, (None, False, True))))
def test_completions_are_of_openais_type(
    http: httpx.Client, fields: dict[str, Any], usage: bool | None
) -> None:
    asked = COMPLETION | fields
    if usage is None:
        payload = http.post(COMPLETIONS, json=asked).json()
        require_strict(COMPLETIONS, Completion, payload)
        assert payload["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0
        return
    options = {"include_usage": usage, "continuous_usage_stats": usage}
    for chunk in events(http.post(COMPLETIONS, json=asked | stream(options))):
        require_strict(COMPLETIONS, Completion, chunk)
        assert ("usage" in chunk) == usage


@pytest.mark.parametrize(("fields", "usage"), list(product(VARIANTS, (None, False, True))))
def test_chats_are_of_openais_type(
    http: httpx.Client, fields: dict[str, Any], usage: bool | None
) -> None:
    asked = CHAT | fields | {"logprobs": "logprobs" in fields, "echo": False, "max_tokens": 3}
    if usage is None:
        payload = http.post(CHATS, json=asked).json()
        require_strict(CHATS, ChatCompletion, payload)
        assert payload["choices"][0]["message"]["refusal"] is None
        return
    options = {"include_usage": usage, "continuous_usage_stats": usage}
    for chunk in events(http.post(CHATS, json=asked | stream(options))):
        require_strict(CHATS, ChatCompletionChunk, chunk)
        assert ("usage" in chunk) == usage
        assert all("finish_reason" in choice for choice in chunk["choices"])


def stream(options: dict[str, bool]) -> dict[str, Any]:
    """What a body has beside, to be answered with a stream."""
    return {"stream": True, "stream_options": options}


@pytest.mark.parametrize(
    ("path", "kind", "fields"),
    [(COMPLETIONS, Completion, COMPLETION), (CHATS, ChatCompletion, CHAT)],
)
def test_the_extras_that_were_asked_for_are_there(
    http: httpx.Client, path: str, kind: type[BaseModel], fields: dict[str, Any]
) -> None:
    payload = http.post(path, json=fields | ALL | {"prompt_logprobs": 1}).json()
    found = require_strict(path, kind, payload)
    wanted = {"stop_reason", "token_ids", "prompt_token_ids", "prompt_logprobs"}
    assert {place.rpartition(".")[2] for place in found} == wanted


def test_the_tokens_of_a_streamed_chat_are_those_of_the_whole(http: httpx.Client) -> None:
    asked = CHAT | ALL | {"max_tokens": 12, "stop": "e", "n": 2}
    whole = http.post(CHATS, json=asked).json()
    first, *chunks = events(http.post(CHATS, json=asked | {"stream": True}))
    assert first["prompt_token_ids"] == whole["prompt_token_ids"]
    for wanted in whole["choices"]:
        choices = [c for chunk in (first, *chunks) for c in chunk["choices"]]
        mine = [choice for choice in choices if choice["index"] == wanted["index"]]
        assert [i for choice in mine for i in choice["token_ids"]] == wanted["token_ids"]


def test_the_check_finds_what_is_wrong(http: httpx.Client) -> None:
    payload = http.post(COMPLETIONS, json=COMPLETION).json()
    with pytest.raises(ValidationError, match=r"surprise\n.*Extra inputs"):
        require_strict(COMPLETIONS, Completion, payload | {"surprise": 1})
    with pytest.raises(ValidationError, match="created"):
        require_strict(COMPLETIONS, Completion, payload | {"created": None})
    with pytest.raises(ValidationError, match="created"):
        require_strict(COMPLETIONS, Completion, payload | {"created": "1"})
    choice = payload["choices"][0]
    with pytest.raises(ValidationError, match=r"choices\.0\.text"):
        require_strict(COMPLETIONS, Completion, payload | {"choices": [choice | {"text": None}]})
    del payload["system_fingerprint"]
    with pytest.raises(ValidationError, match=r"system_fingerprint\n.*Field required"):
        require_strict(COMPLETIONS, Completion, payload)
