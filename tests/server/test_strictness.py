"""The copies of openai's types refuse what the types themselves let pass."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import ValidationError

from tests.server.strictness import require_strict

CHUNK: dict[str, Any] = {
    "id": "1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "a",
    "system_fingerprint": "a",
    "choices": [
        {
            "index": 0,
            "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
            "logprobs": None,
            "finish_reason": None,
            "stop_reason": None,
        }
    ],
}
EVENT: dict[str, Any] = {
    "type": "response.output_text.delta",
    "sequence_number": 1,
    "item_id": "1",
    "output_index": 0,
    "content_index": 0,
    "delta": "a",
    "logprobs": [],
}


def test_documented_extras_are_returned() -> None:
    found = require_strict("/v1/chat/completions", ChatCompletionChunk, CHUNK)
    assert found == {"choices[].stop_reason"}
    assert not require_strict("/v1/responses", ResponseStreamEvent, EVENT)


def test_an_extra_belongs_to_its_place() -> None:
    with pytest.raises(ValidationError, match=r"^1 validation.*\nstop_reason\n"):
        require_strict("/v1/chat/completions", ChatCompletionChunk, CHUNK | {"stop_reason": None})
    with pytest.raises(ValidationError, match=r"choices\.0\.stop_reason\n"):
        require_strict("/v1/embeddings", ChatCompletionChunk, CHUNK)


def test_an_unknown_field_is_found_however_deep() -> None:
    choice = CHUNK["choices"][0]
    call = choice["delta"]["tool_calls"][0] | {"surprise": 1}
    deep = CHUNK | {"choices": [choice | {"delta": {"tool_calls": [call]}}]}
    with pytest.raises(ValidationError, match=r"tool_calls\.0\.surprise"):
        require_strict("/v1/chat/completions", ChatCompletionChunk, deep)


def test_a_union_takes_none_that_fits_no_member() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        require_strict("/v1/responses", ResponseStreamEvent, EVENT | {"surprise": 1})
    with pytest.raises(ValidationError, match="type"):
        require_strict("/v1/responses", ResponseStreamEvent, EVENT | {"type": "response.wish"})


def test_a_number_is_no_text_and_a_text_no_number() -> None:
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1]}],
        "model": "a",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    require_strict("/v1/embeddings", CreateEmbeddingResponse, answer)
    with pytest.raises(ValidationError, match="model"):
        require_strict("/v1/embeddings", CreateEmbeddingResponse, answer | {"model": 1})
    usage = {"prompt_tokens": "1", "total_tokens": 1}
    with pytest.raises(ValidationError, match="prompt_tokens"):
        require_strict("/v1/embeddings", CreateEmbeddingResponse, answer | {"usage": usage})
