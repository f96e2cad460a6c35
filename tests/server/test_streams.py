"""Streams of chat chunks, as they are on the wire and as the openai client reads them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from toolkit.engine.events import Aborted, TokenSampled
from toolkit.llm import LLM
from toolkit.server import Server

MESSAGES = [{"role": "user", "content": "Hello world"}]
GREEDY = {"model": "tiny", "messages": MESSAGES, "temperature": 0}


def events(http: httpx.Client, **fields: Any) -> list[Any]:
    """The payloads of a stream, in order; [DONE] stays a string."""
    body = {**GREEDY, "stream": True, **fields}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *lines, rest = answer.text.split("\n\n")
    assert rest == ""
    payloads = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in payloads]


def test_a_stream_has_a_role_contents_an_empty_delta_and_an_end(http: httpx.Client) -> None:
    *chunks, done = events(http, max_tokens=6)
    assert done == "[DONE]"
    first, *middle, last = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in middle)
    assert all(chunk["choices"][0]["delta"]["content"] for chunk in middle)
    assert last["choices"][0]["delta"] == {}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert all("usage" not in chunk for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)


def test_contents_add_up_to_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=12).choices[0].message.content
    stream = client.chat.completions.create(**GREEDY, max_tokens=12, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole


def test_usage_comes_once_and_only_if_asked_for(http: httpx.Client) -> None:
    *chunks, last, done = events(http, max_tokens=4, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in chunks)


def test_usage_can_be_had_with_every_chunk(http: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, _ = events(http, max_tokens=4, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_the_samples_of_a_stream_are_told_apart_by_index(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": MESSAGES, "n": 2, "seed": 2, "max_tokens": 6}
    whole = client.chat.completions.create(**asked)
    texts, roles, reasons = ["", ""], [0, 0], [None, None]
    for chunk in client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index] += choice.delta.role is not None
        reasons[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert roles == [1, 1]
    assert reasons == [choice.finish_reason for choice in whole.choices]


def test_a_stop_string_never_shows_in_a_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=16).choices[0].message.content
    assert whole is not None
    stop = whole[6:9]
    chunks = list(client.chat.completions.create(**GREEDY, max_tokens=16, stop=stop, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.fixture
def slow_engine(llm: LLM) -> Iterator[None]:
    """Let a token take a millisecond at least, so that a client can leave before the last."""
    stop = llm.engine.on(TokenSampled, lambda event: time.sleep(0.001))
    yield
    stop()


@pytest.mark.usefixtures("slow_engine")
def test_an_aborted_request_ends_its_stream_with_an_error(
    client: openai.OpenAI, server: Server
) -> None:
    extra = {"ignore_eos": True}
    stream = client.chat.completions.create(**GREEDY, stream=True, extra_body=extra)
    next(stream)
    (request,) = server.engine.snapshot().running
    server.engine.abort(request.request_id)
    with pytest.raises(openai.APIError, match="aborted"):
        list(stream)
    assert "aborted" in server.logs[-1]


def wait_for(condition: Any, timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return bool(condition())


@pytest.mark.usefixtures("slow_engine")
def test_leaving_a_stream_aborts_its_request(client: openai.OpenAI, llm: LLM) -> None:
    seen: list[Aborted] = []
    unsubscribe = llm.engine.on(Aborted, seen.append)
    extra = {"ignore_eos": True}
    stream = client.chat.completions.create(**GREEDY, stream=True, n=1, extra_body=extra)
    next(stream)
    stream.close()
    assert wait_for(lambda: seen)
    unsubscribe()
    assert seen[0].by == "disconnect"
    assert llm.engine.scheduler.num_running == 0
    assert llm.engine.cache.pool.num_used == 0


@pytest.mark.usefixtures("slow_engine")
def test_leaving_a_whole_answer_aborts_all_its_samples(http: httpx.Client, llm: LLM) -> None:
    seen: list[Aborted] = []
    sampled: list[TokenSampled] = []
    unsubscribe = [llm.engine.on(Aborted, seen.append), llm.engine.on(TokenSampled, sampled.append)]
    body = {"model": "tiny", "messages": MESSAGES, "n": 2, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.2)
    assert wait_for(lambda: len(seen) == 2)
    for stop in unsubscribe:
        stop()
    assert {event.by for event in seen} == {"disconnect"}
    assert 0 < len(sampled) < 2 * llm.max_model_len - 100
    assert llm.engine.scheduler.num_running == 0
