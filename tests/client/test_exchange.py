"""What is made of an answer: which chunks are output, what is an error, whose count holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from toolkit.client.exchange import Answer, Exchange

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
DONE = "[DONE]"


def chunked(*events: Any) -> list[bytes]:
    """Each event in a chunk of its own."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    bodies = [f"data: {text}\n\n".encode() for text in texts]
    return [b"%x\r\n%b\r\n" % (len(body), body) for body in bodies]


def answered(*events: Any, end: bytes = END) -> Answer:
    """Read a stream whose events come a second apart, the first after a second."""
    exchange = Exchange(Answer(0, 0.0, 0.0, 0.0))
    exchange.received(HEAD, 0.0)
    for second, part in enumerate(chunked(*events), 1):
        exchange.received(part, float(second))
    if end:
        exchange.received(end, 99.0)
    else:
        exchange.lost(99.0)
    assert exchange.is_over
    return exchange.answer


def text(value: str, reason: str | None = None) -> dict[str, Any]:
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": value, "finish_reason": reason}]}


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "chat-1", "choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


def test_times_are_of_chunks_and_counts_are_the_servers() -> None:
    answer = answered(text("a"), text("bc"), text("d", "length"), USAGE, DONE)
    assert answer.status == "finished"
    assert list(answer.pieces_s) == [1.0, 2.0, 3.0]
    assert answer.finished_s == 5.0
    assert answer.request_id == "cmpl-1"
    counts = (answer.num_prompt_tokens, answer.num_output_tokens, answer.num_cached_tokens)
    assert counts == (7, 5, 4)


def test_a_token_that_spells_nothing_is_output_and_a_mere_reason_is_not() -> None:
    answer = answered(text("a"), text(""), text("", "stop"), DONE)
    assert list(answer.pieces_s) == [1.0, 2.0]


def usage(num_output_tokens: int) -> dict[str, Any]:
    return {
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": num_output_tokens},
    }


@pytest.mark.parametrize("last", [text("", "length"), delta("length", content="")])
def test_a_last_token_that_spells_nothing_is_output_where_the_server_counts_it(last: Any) -> None:
    """As vLLM sends it: a chunk for each token, the last one with a reason and no text."""
    first = text("a") if "text" in last["choices"][0] else delta(content="a")
    assert list(answered(first, last, usage(2), DONE).pieces_s) == [1.0, 2.0]
    assert list(answered(first, last, usage(1), DONE).pieces_s) == [1.0]


def test_an_answer_of_one_token_that_spells_nothing_has_not_failed() -> None:
    answer = answered(text("", "length"), usage(1), DONE)
    assert answer.status == "finished"
    assert list(answer.pieces_s) == [1.0]


def test_the_count_may_come_with_the_chunk_that_closes() -> None:
    answer = answered(text("a"), {**text("", "stop"), "usage": usage(3)["usage"]}, DONE)
    assert list(answer.pieces_s) == [1.0, 2.0]


def test_the_role_that_opens_a_chat_is_no_output() -> None:
    answer = answered(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content="a"),
        delta(tool_calls=[{"index": 0}]),
        delta("stop"),
        DONE,
    )
    assert list(answer.pieces_s) == [2.0, 3.0, 4.0]


def test_a_role_that_comes_with_text_is_output() -> None:
    assert list(answered(delta(role="assistant", content="a"), delta("stop")).pieces_s) == [1.0]


def test_an_error_in_the_stream_is_the_requests_error() -> None:
    answer = answered(text("a"), {"error": {"message": "out of luck"}}, end=b"")
    assert (answer.status, answer.error) == ("failed", "out of luck")
    assert list(answer.pieces_s) == [1.0]


@pytest.mark.parametrize(
    "told", ["4", [1], 4.5, -3, True, float("nan"), 10**30, {}, None], ids=lambda told: repr(told)
)
def test_what_is_no_count_is_as_if_it_were_not_told(told: Any) -> None:
    usage = {
        "prompt_tokens": told,
        "completion_tokens": told,
        "prompt_tokens_details": {"cached_tokens": told},
    }
    answer = answered(text("a"), text("b", "length"), {"choices": [], "usage": usage}, DONE)
    assert answer.status == "finished"
    counts = (answer.num_prompt_tokens, answer.num_output_tokens, answer.num_cached_tokens)
    assert counts == (None, None, None)


@pytest.mark.parametrize("usage", [[1], "x", {"prompt_tokens_details": 3}])
def test_usage_of_another_shape_is_none(usage: Any) -> None:
    answer = answered(text("a", "length"), {"choices": [], "usage": usage}, DONE)
    assert (answer.status, answer.num_cached_tokens) == ("finished", None)


def test_no_output_tokens_are_not_believed_where_output_came() -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    answer = answered(text("a", "length"), {"choices": [], "usage": usage}, DONE)
    assert (answer.num_prompt_tokens, answer.num_output_tokens) == (0, None)


@pytest.mark.parametrize("event", ["{", "[1]", '"x"', '{"choices": [{"delta": 3}]}', "null"])
def test_bad_json_fails_the_request(event: str) -> None:
    answer = answered(text("a"), event, text("b"), DONE)
    assert answer.status == "failed"
    assert "no chunk of a completion" in str(answer.error)


def test_json_that_is_too_deep_fails_the_request() -> None:
    assert "no chunk of a completion" in str(answered(text("a"), "[" * 100_000).error)


def test_a_stream_that_breaks_off_has_failed() -> None:
    assert "closed the connection" in str(answered(text("a"), end=b"").error)
    assert "broke off" in str(answered(text("a")).error)
    assert "held no output" in str(answered(USAGE, DONE).error)


def test_done_ends_the_answer_even_if_the_body_goes_on() -> None:
    answer = answered(text("a", "stop"), DONE, text("late"))
    assert answer.finished_s == 2.0
    assert list(answer.pieces_s) == [1.0]


def test_a_refusal_carries_status_and_words() -> None:
    exchange = Exchange(Answer(0, 0.0, 0.0, 0.0))
    body = b'{"error": "queue is full"}'
    exchange.received(b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n" % len(body), 1.0)
    exchange.received(body, 2.0)
    assert exchange.answer.status == "failed"
    assert exchange.answer.error == '429: {"error": "queue is full"}'


def test_an_answer_that_is_not_streamed_is_refused() -> None:
    exchange = Exchange(Answer(0, 0.0, 0.0, 0.0))
    exchange.received(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 1.0
    )
    assert "application/json" in str(exchange.answer.error)
