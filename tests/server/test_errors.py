"""Whatever is wrong, the answer is an error in OpenAI's shape that names the field."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from starlette.types import Receive, Scope, Send

from tests.builders import LedgerRunner, make_engine
from toolkit.engine import Engine
from toolkit.llm import LLM
from toolkit.server import Server
from toolkit.server.identity import Identity
from toolkit.server.listeners import listen
from toolkit.server.served import ServedModel
from toolkit.server.settings import ServerSettings

MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 2}
COMPLETION = {"model": "tiny", "prompt": "Hello", "max_tokens": 2}


def post(http: httpx.Client, fields: dict[str, Any]) -> httpx.Response:
    """Post to completions if there is a prompt, else to chat."""
    path = "/v1/completions" if "prompt" in fields else "/v1/chat/completions"
    return http.post(path, json=fields)


def error_of(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error object, after a look at everything that is the same for all errors."""
    assert answer.status_code == status
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_k": 2**70}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 500}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"use_beam_search": True, "stream": True}, "stream"),
        ({"guided_choice": []}, "guided_choice"),
        ({"messages": []}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"content": "no role"}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0]"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
    ],
)
def test_a_bad_field_of_a_chat_is_named(
    http: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    error = error_of(post(http, CHAT | fields))
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [999_999]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"best_of": 3, "temperature": 0}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"typical_p": 0.0}, "typical_p"),
        ({"bad_words": "the"}, "bad_words"),
        ({"bad_words": [""]}, "bad_words"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids[0]"),
        ({"allowed_token_ids": [999_999]}, "allowed_token_ids"),
    ],
)
def test_a_bad_field_of_a_completion_is_named(
    http: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    assert error_of(post(http, COMPLETION | fields))["param"] == param


def test_a_stream_with_a_bad_field_has_an_error_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, temperature=-1, stream=True)
    assert caught.value.param == "temperature"


def test_an_image_is_refused(http: httpx.Client) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "http://localhost/cat.png"}}]
    error = error_of(post(http, CHAT | {"messages": [{"role": "user", "content": parts}]}))
    assert "messages[0].content[0] is of type 'image_url'" in error["message"]


@pytest.mark.parametrize("missing", ["messages", "prompt"])
def test_a_missing_field_is_named(http: httpx.Client, missing: str) -> None:
    path = "/v1/chat/completions" if missing == "messages" else "/v1/completions"
    assert error_of(http.post(path, json={"model": "tiny"}))["param"] == missing


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"model": ', "application/json"),
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"\xff\xfe", "application/json"),
        ('{"messages": [{"role": "user", "content": "a"}]}'.encode("utf-16"), "application/json"),
        (b'{"messages": []}', "text/plain"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "application/json"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    http: httpx.Client, content: bytes, content_type: str
) -> None:
    headers = {"content-type": content_type}
    error_of(http.post("/v1/chat/completions", content=content, headers=headers))


def test_a_prompt_that_is_too_long_has_openais_code(http: httpx.Client, llm: LLM) -> None:
    error = error_of(post(http, COMPLETION | {"prompt": [65] * (llm.max_model_len + 1)}))
    assert error["code"] == "context_length_exceeded"
    assert str(llm.max_model_len) in error["message"]


def test_an_unknown_model_is_a_404_that_lists_the_served_names(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "'tiny', 'mosaicml/mpt-7b'" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_an_unknown_path_lists_the_paths(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/audio/speech", json={}), status=404)
    assert "POST /v1/chat/completions" in error["message"]


def test_a_wrong_method_says_which_one_is_right(http: httpx.Client) -> None:
    answer = http.get("/v1/completions")
    assert "POST /v1/completions" in error_of(answer, status=405)["message"]
    assert answer.headers["allow"] == "POST"


@pytest.fixture
def broken(llm: LLM) -> Iterator[Server]:
    """A server whose engine breaks in its third step."""
    engine: Engine = make_engine(text=llm.tokenizer)
    runner = engine.runner
    assert isinstance(runner, LedgerRunner)
    runner.fail_steps.add(2)
    served = ServedModel(
        engine=engine,
        tokenizer=llm.tokenizer,
        root="ledger",
        names=("ledger",),
        max_model_len=64,
        default_params={},
        created=0,
    )
    engine.start()
    settings = ServerSettings(port=0)
    with Server(None, served, listen(settings), settings=settings, owns_llm=False) as server:
        yield server
    engine.close()


ASKED = {"model": "ledger", "prompt": [1, 2], "max_tokens": 8, "extra_body": {"ignore_eos": True}}


def test_a_failed_request_is_a_500_that_clients_do_not_repeat(broken: Server) -> None:
    with broken.client() as client, pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(**ASKED)
    assert caught.value.code == "internal_error"
    assert "the machine broke" in str(caught.value)
    assert sum("POST" in line for line in broken.logs) == 1
    assert "the machine broke" in broken.logs[-1]


def test_a_failure_in_the_middle_of_a_stream_is_an_event_and_the_end(broken: Server) -> None:
    with broken.client() as client:
        stream = client.completions.create(**ASKED, stream=True)
        next(stream)
        with pytest.raises(openai.APIError, match="the machine broke"):
            list(stream)
        assert client.completions.create(**ASKED).choices[0].finish_reason == "length"


def test_a_bug_of_ours_is_a_500_with_an_id_and_a_log_line() -> None:
    async def buggy(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Identity(buggy, log=lines.append))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/completions", headers={"x-request-id": "mine"})

    lines: list[str] = []
    answer = asyncio.run(ask())
    assert error_of(answer, status=500)["code"] == "internal_error"
    assert answer.headers["x-request-id"] == "mine"
    assert lines[0].startswith("POST /v1/completions 500")


def test_after_the_engine_closed_the_answer_is_503(broken: Server) -> None:
    broken.engine.close()
    answer = httpx.post(f"{broken.url}/v1/completions", json={"prompt": [1]})
    assert error_of(answer, status=503)["code"] == "engine_unavailable"
    assert httpx.get(f"{broken.url}/health").status_code == 503


def test_a_path_without_v1_is_told_what_it_lacks(http: httpx.Client) -> None:
    answer = http.post("/chat/completions", json={})
    assert answer.status_code == 404
    assert "/v1/chat/completions is: a client's base_url ends with /v1" in answer.text
