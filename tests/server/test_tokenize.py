"""POST /tokenize and /detokenize: vLLM's shapes, and tokens that are those of a completion."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.test_errors import error_of
from toolkit.llm import LLM

MESSAGES = [{"role": "user", "content": "Hello world"}]


def test_a_text_becomes_tokens(http: httpx.Client, llm: LLM) -> None:
    answer = http.post("/tokenize", json={"model": "tiny", "prompt": "Hello world"})
    ids = llm.tokenizer.encode("Hello world")
    assert answer.json() == {
        "count": len(ids),
        "max_model_len": llm.max_model_len,
        "tokens": ids,
        "token_strs": None,
    }


def test_tokens_are_shown_as_the_vocabulary_writes_them(http: httpx.Client) -> None:
    asked = {"prompt": "Hello world", "return_token_strs": True}
    assert http.post("/tokenize", json=asked).json()["token_strs"] == ["Hello", "Ġworld"]


def test_a_conversation_has_the_tokens_of_its_prompt(http: httpx.Client) -> None:
    answer = http.post("/tokenize", json={"messages": MESSAGES}).json()
    chat = {"messages": MESSAGES, "max_tokens": 1, "return_token_ids": True}
    asked = http.post("/v1/chat/completions", json=chat).json()
    assert answer["tokens"] == asked["prompt_token_ids"]
    assert answer["count"] == asked["usage"]["prompt_tokens"]
    open_ended = {"messages": MESSAGES, "add_generation_prompt": False}
    assert http.post("/tokenize", json=open_ended).json()["count"] < answer["count"]


def test_tokens_become_their_text(http: httpx.Client) -> None:
    text = "Hello<|im_end|> wörld 🙂"
    tokens = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": text}
    assert http.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "a", "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [2**70]}, "tokens"),
        ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
    ],
)
def test_a_bad_field_is_named(
    http: httpx.Client, path: str, fields: dict[str, Any], param: str
) -> None:
    assert error_of(http.post(path, json=fields))["param"].startswith(param)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_an_unknown_model_is_a_404(http: httpx.Client, path: str) -> None:
    fields = {"model": "gpt-9", "prompt": "a", "tokens": [1]}
    assert error_of(http.post(path, json=fields), status=404)["code"] == "model_not_found"
