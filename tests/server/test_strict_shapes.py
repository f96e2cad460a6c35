"""Every answer and every chunk of a live run is of openai's types to the letter.

The matrix: endpoint, whole or streamed, one sample or two, log-probabilities or none, a form
of the answer or none, tools or none. Weights are random, so an answer's content is whatever it is.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any, Literal

import httpx
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from tests.server.strictness import places, require_strict
from toolkit.server.extras import EXTRAS

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 3}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
FORMS: dict[str, dict[str, Any]] = {
    "free": {},
    "object": {"response_format": {"type": "json_object"}},
    "schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": SCHEMA, "strict": True},
        }
    },
    "choice": {"structured_outputs": {"choice": ["yes", "no"]}},
}
FUNCTION = {"name": "meet", "description": "Meet somebody.", "parameters": SCHEMA, "strict": True}
TOOLS: dict[str, dict[str, Any]] = {
    "auto": {"tool_choice": "auto"},
    "required": {"tool_choice": "required"},
    "one": {"tool_choice": "required", "parallel_tool_calls": False},
    "named": {"tool_choice": {"type": "function", "function": {"name": "meet"}}},
    "none": {"tool_choice": "none"},
}
STREAMS: dict[str, dict[str, Any]] = {
    "whole": {},
    "streamed": {"stream": True},
    "with-usage": {"stream": True, "stream_options": {"include_usage": True}},
    "with-usages": {
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
}
LOGPROBS: list[dict[str, Any]] = [{}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}]
ENDS = {"stop", "length", "content_filter", "tool_calls"}


class ModelList(BaseModel):
    """A page of models, as it travels: openai's own page has what is needed to turn it."""

    object: Literal["list"]
    data: list[Model]


def answers(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer, or the chunks of a stream that ended well."""
    answer = http.post(path, json={"model": "tiny", "seed": 1, **body})
    assert answer.status_code == 200, answer.text
    assert not answer.headers.get("x-toolkit-ignored")
    if not body.get("stream"):
        return [answer.json()]
    *chunks, last, end = answer.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def require_one_end(chunks: list[dict[str, Any]], num_choices: int) -> None:
    """Fail unless each choice ends once, with a known reason, and nothing of it follows."""
    ended: list[int] = []
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        assert choice["index"] not in ended
        if choice["finish_reason"] is not None:
            assert choice["finish_reason"] in ENDS
            ended.append(choice["index"])
    assert sorted(ended) == list(range(num_choices))


def require_usage(chunks: list[dict[str, Any]], body: dict[str, Any]) -> None:
    """Fail unless usage is where it was asked for, and adds up."""
    options = body.get("stream_options", {})
    if body.get("stream"):
        assert all(("usage" in chunk) == bool(options) for chunk in chunks)
    if body.get("stream") and not options:
        return
    *before, last = chunks
    assert all(
        (chunk["usage"] is None) != ("continuous_usage_stats" in options) for chunk in before
    )
    usage = last["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    if body.get("stream"):
        assert last["choices"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "stream", "n", "logprobs"),
    list(
        product(
            FORMS, STREAMS, (1, 2), ({}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2})
        )
    ),
)
def test_chats(
    http: httpx.Client, form: str, stream: str, n: int, logprobs: dict[str, Any]
) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 12,
        "n": n,
        **logprobs,
        **FORMS[form],
        **STREAMS[stream],
    }
    chunks = answers(http, CHATS, body)
    for chunk in chunks:
        assert not require_strict(
            CHATS, ChatCompletionChunk if "stream" in body else ChatCompletion, chunk
        ) - {"choices[].stop_reason"}
    require_one_end(chunks, n)
    require_usage(chunks, body)
    has_logprobs = any(choice["logprobs"] for chunk in chunks for choice in chunk["choices"])
    assert has_logprobs == bool(logprobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "stream", "n", "logprobs"), list(product(TOOLS, STREAMS, (1, 2), LOGPROBS))
)
def test_chats_with_tools(
    http: httpx.Client, choice: str, stream: str, n: int, logprobs: dict[str, Any]
) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": [{"type": "function", "function": FUNCTION}],
        "max_tokens": 60,
        "n": n,
        **logprobs,
        **TOOLS[choice],
        **STREAMS[stream],
    }
    chunks = answers(http, CHATS, body)
    for chunk in chunks:
        kind = ChatCompletionChunk if "stream" in body else ChatCompletion
        assert not require_strict(CHATS, kind, chunk) - {"choices[].stop_reason"}
    require_one_end(chunks, n)
    require_usage(chunks, body)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    calls = [(one.get("message") or one["delta"]).get("tool_calls") for one in choices]
    if choice in ("required", "one", "named"):
        assert any(calls)
    if choice == "none":
        assert not any(calls)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "stream", "n", "logprobs", "echo", "prompt"),
    list(
        product(FORMS, STREAMS, (1, 2), (None, 0, 2), (False, True), ("Hello", ["Hello", "world"]))
    ),
)
def test_completions(
    http: httpx.Client,
    form: str,
    stream: str,
    n: int,
    logprobs: int | None,
    echo: bool,
    prompt: str | list[str],
) -> None:
    body = {
        "prompt": prompt,
        "max_tokens": 12,
        "n": n,
        "logprobs": logprobs,
        "echo": echo,
        **FORMS[form],
        **STREAMS[stream],
    }
    chunks = answers(http, COMPLETIONS, body)
    for chunk in chunks:
        assert not require_strict(COMPLETIONS, Completion, chunk) - {"choices[].stop_reason"}
    require_one_end(chunks, n * (len(prompt) if isinstance(prompt, list) else 1))
    require_usage(chunks, body)
    has_logprobs = any(choice["logprobs"] for chunk in chunks for choice in chunk["choices"])
    assert has_logprobs == (logprobs is not None)


@pytest.mark.parametrize(
    ("given", "fields"),
    list(
        product(
            ("Hello", ["Hello", "world"], [65, 66], [[65], [66, 67]]),
            ({}, {"dimensions": 3}, {"encoding_format": "float"}, {"pooling": "mean"}),
        )
    ),
)
def test_embeddings(http: httpx.Client, given: Any, fields: dict[str, Any]) -> None:
    answer = http.post(EMBEDDINGS, json={"model": "tiny", "input": given, **fields})
    assert answer.status_code == 200, answer.text
    assert not require_strict(EMBEDDINGS, CreateEmbeddingResponse, answer.json())


RESPONSE_FORMS: dict[str, dict[str, Any]] = {
    "free": {},
    "schema": {
        "text": {
            "format": {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}
        }
    },
    "tools": {"tools": [{"type": "function", **FUNCTION}]},
    "required": {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required"},
}


@pytest.mark.parametrize(
    ("form", "logprobs", "limit"), list(product(RESPONSE_FORMS, (False, True), (4, 60)))
)
def test_responses(http: httpx.Client, form: str, logprobs: bool, limit: int) -> None:
    body: dict[str, Any] = {
        "model": "tiny",
        "input": "Hello",
        "max_output_tokens": limit,
        **RESPONSE_FORMS[form],
    }
    if logprobs:
        body |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = http.post(RESPONSES, json=body)
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    require_strict(RESPONSES, Response, whole)
    kept = http.get(f"{RESPONSES}/{whole['id']}").json()
    assert kept == whole
    kinds = []
    for event in http.post(RESPONSES, json=body | {"stream": True}).text.split("\n\n")[:-1]:
        name, _, payload = event.partition("\n")
        chunk = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {chunk['type']}"
        require_strict(RESPONSES, ResponseStreamEvent, chunk)
        assert chunk["sequence_number"] == len(kinds)
        kinds.append(chunk["type"])
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete")


def test_models(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert require_strict("/v1/models", ModelList, listed) == set(EXTRAS["/v1/models"])
    for card in listed["data"]:
        one = http.get(f"/v1/models/{card['id']}").json()
        assert one == card
        Model.model_validate_json(json.dumps(one), strict=True)


def test_every_documented_extra_exists(http: httpx.Client) -> None:
    """The list of extras holds nothing that no answer has."""
    everything = {"return_token_ids": True, "prompt_logprobs": 1, "max_tokens": 2}
    for path, body in (
        (CHATS, {"messages": [{"role": "user", "content": "Hello"}]}),
        (COMPLETIONS, {"prompt": "Hello"}),
    ):
        (whole,) = answers(http, path, body | everything)
        # Reasoning is there for models that reason; tests of such models look at it.
        assert {place for place in EXTRAS[path] if "reasoning" not in place} <= places(whole)
