"""What one client may take: the size, pace and depth of a body, calls at once, time, memory."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import anyio
import httpx
import openai
import pytest
from starlette.types import Message, Receive, Scope, Send

from toolkit.engine.events import Aborted, Finished
from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.limits import BodyLimit, nesting_exceeds

MAX_BYTES = 4000
PATH = "/v1/completions"
ASK = {"model": "tiny", "prompt": "Hello", "max_tokens": 2}
LONG = {**ASK, "max_tokens": 400, "ignore_eos": True}


@pytest.fixture(scope="module")
def limited(llm: LLM) -> Iterator[Server]:
    with serve(
        llm,
        port=0,
        served_model_name="tiny",
        max_body_bytes=MAX_BYTES,
        body_timeout_s=0.3,
        max_concurrent_requests=2,
    ) as server:
        yield server


def error_of(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


class RawConnection:
    """Says what no HTTP library would, and reads answers one by one."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def send(self, headers: str, body: bytes = b"") -> None:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}"
        self._socket.sendall(head.encode() + b"\r\n" + body)

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> httpx.Response:
        status = int(self._answers.readline().split()[1])
        headers = {}
        while line := self._answers.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name] = value
        body = self._answers.read(int(headers["content-length"]))
        return httpx.Response(status, headers=headers, content=body)

    def read_to_end(self) -> bytes:
        return self._answers.read()

    def is_closed(self) -> bool:
        return self._answers.read(1) == b""


def plain(body: object) -> tuple[str, bytes]:
    data = json.dumps(body).encode()
    return f"content-length: {len(data)}\r\n", data


def chunked(data: bytes, size: int = 1000) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# ---- bodies


def test_a_body_that_announces_too_much_is_refused_before_it_comes(limited: Server) -> None:
    with RawConnection(limited) as connection:
        connection.send(f"content-length: {MAX_BYTES + 1}\r\n")
        error = error_of(connection.answer(), 413)
        assert error["code"] == "request_too_large"
        assert str(MAX_BYTES) in error["message"]


def test_the_connection_lives_on_after_a_body_that_was_too_long(limited: Server) -> None:
    with RawConnection(limited) as connection:
        connection.send(*plain({**ASK, "prompt": "x" * 200_000}))
        error_of(connection.answer(), 413)
        connection.send(*plain(ASK))
        assert connection.answer().status_code == 200


def test_a_chunked_body_counts_as_it_comes(limited: Server) -> None:
    with RawConnection(limited) as connection:
        data = json.dumps({**ASK, "safety_identifier": "x" * MAX_BYTES}).encode()
        connection.send("transfer-encoding: chunked\r\n", chunked(data))
        error_of(connection.answer(), 413)
        connection.send("transfer-encoding: chunked\r\n", chunked(json.dumps(ASK).encode(), 7))
        assert connection.answer().status_code == 200


def test_a_body_of_the_longest_length_is_taken(limited: Server) -> None:
    room = MAX_BYTES - len(json.dumps({**ASK, "safety_identifier": ""}).encode())
    headers, data = plain({**ASK, "safety_identifier": "x" * room})
    assert len(data) == MAX_BYTES
    with RawConnection(limited) as connection:
        connection.send(headers, data)
        assert connection.answer().status_code == 200


def test_a_length_that_promises_more_than_comes_ends_in_a_timeout(limited: Server) -> None:
    with RawConnection(limited) as connection:
        connection.send("content-length: 1000\r\n", json.dumps(ASK).encode())
        answer = connection.answer()
        assert error_of(answer, 408)["code"] == "request_timeout"
        assert answer.headers["connection"] == "close"
        assert connection.is_closed()


def test_a_length_that_promises_less_than_comes_is_refused_with_the_rest(limited: Server) -> None:
    with RawConnection(limited) as connection:
        connection.send("content-length: 10\r\n", json.dumps(ASK).encode())
        answers = connection.read_to_end()  # the rest is no HTTP, which ends the connection
    statuses = [line for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert set(statuses) == {b"HTTP/1.1 400 Bad Request"}


def test_a_body_that_comes_slowly_but_steadily_is_taken(limited: Server) -> None:
    headers, data = plain(ASK)
    paced = threading.Event()
    with RawConnection(limited) as connection:
        connection.send(headers, data[:10])
        for byte in data[10:14]:  # together longer than the time-out of one pause
            paced.wait(0.1)
            connection.send_raw(bytes([byte]))
        connection.send_raw(data[14:])
        assert connection.answer().status_code == 200


async def test_a_body_that_drips_may_not_take_for_ever() -> None:
    drips = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal drips
        drips += 1
        await anyio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pytest.fail("the body has no end")

    scope = {"type": "http", "method": "POST", "headers": [], "state": {}}
    await BodyLimit(app, max_bytes=MAX_BYTES, timeout_s=0.05)(scope, receive, send)
    assert drips > 2
    assert sent[0]["status"] == 408
    assert b"0.5 s" in sent[1]["body"]


def test_what_is_no_http_is_refused_in_openais_shape(limited: Server) -> None:
    with RawConnection(limited) as connection:
        connection.send_raw(b"\x16\x03\x01 hello?\r\n\r\n")
        error_of(connection.answer(), 400)
        assert connection.is_closed()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": "tiny", "prompt": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        json.dumps({**ASK, "metadata": "x"}).encode().replace(b'"x"', b"[" * 500 + b"]" * 500),
        ('{"model": ' + "[" * 3000).encode("utf-16"),
    ],
)
def test_a_body_that_nests_without_end_is_a_400(server: Server, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    error_of(httpx.post(f"{server.url}{PATH}", content=body, headers=headers), 400)


def test_depth_is_counted_outside_of_strings() -> None:
    assert not nesting_exceeds(b"[" * 5 + b"]" * 5, 5)
    assert nesting_exceeds(b"[" * 6 + b"]" * 6, 5)
    assert nesting_exceeds(b'[{"a": [{"b": [[]]}]}]', 5)
    assert not nesting_exceeds(b"[[]," * 3 + b"[]]]]", 5)
    text = json.dumps(["[[[[[[[", '"[[[[', "\\", '\\"{{{{{{', "]]"]).encode()
    assert not nesting_exceeds(text, 5)
    assert nesting_exceeds(text + b"[[[[[[", 5)


# ---- calls at once


def test_calls_beyond_the_limit_are_told_to_come_again(limited: Server, llm: LLM) -> None:
    url = f"{limited.url}{PATH}"
    with limited.client(max_retries=0) as client:
        with llm.engine.paused():
            streams = [client.completions.create(**ASK, stream=True) for _ in range(2)]
            answer = httpx.post(url, json=ASK)
            error = error_of(answer, 429)
            error_of(httpx.post(f"{limited.url}/tokenize", json={"prompt": "a"}), 429)
            assert error["code"] == "rate_limit_exceeded"
            assert answer.headers["retry-after"] == "1"
            with pytest.raises(openai.RateLimitError):
                client.completions.create(**ASK)
            assert httpx.get(f"{limited.url}/health").status_code == 200
        for stream in streams:
            assert list(stream)
    assert httpx.post(url, json=ASK).status_code == 200


def test_a_client_that_leaves_makes_room(limited: Server, llm: LLM) -> None:
    ended = threading.Event()
    unsubscribe = llm.engine.on(Aborted, lambda _: ended.set())
    with llm.engine.paused(), limited.client(max_retries=0) as client:
        streams = [client.completions.create(**ASK, stream=True) for _ in range(2)]
        for stream in streams:
            stream.close()
        assert ended.wait(10)
        assert client.completions.with_raw_response.create(**ASK, stream=True).status_code == 200
    unsubscribe()


# ---- time


@pytest.fixture
def hasty(llm: LLM) -> Iterator[Server]:
    with serve(llm, port=0, served_model_name="tiny", request_timeout_s=0.3) as server:
        yield server


def test_an_answer_that_takes_too_long_is_a_504_and_its_request_is_aborted(
    hasty: Server, llm: LLM
) -> None:
    with llm.engine.paused():
        answer = httpx.post(f"{hasty.url}{PATH}", json=LONG)
        error = error_of(answer, 504)
    assert error["code"] == "request_timeout"
    assert answer.headers["x-should-retry"] == "false"
    assert_all_is_free(llm)


def test_a_stream_that_takes_too_long_ends_with_an_error_event(hasty: Server, llm: LLM) -> None:
    with llm.engine.paused(), hasty.client() as client:
        stream = client.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match=r"0\.3 s"):
            list(stream)
    assert "0.3 s" in hasty.logs[-1]
    assert_all_is_free(llm)


def test_an_answer_in_time_is_left_alone(hasty: Server) -> None:
    assert httpx.post(f"{hasty.url}{PATH}", json=ASK).status_code == 200


def assert_all_is_free(llm: LLM) -> None:
    """Aborts travel through a thread: wait for the engine to be idle, then count."""
    idle = llm.engine.snapshot()
    while idle.running or idle.waiting:
        idle = llm.engine.snapshot()
    assert llm.engine.cache.pool.num_used == 0
    llm.engine.cache.pool.check()


# ---- slow readers


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_up_nobody_and_gets_all_of_it_later(
    server: Server, llm: LLM
) -> None:
    """64 samples of 400 tokens are megabytes of events: more than any socket's buffer."""
    body = json.dumps({**LONG, "n": 64, "logprobs": 5, "stream": True}).encode()
    with RawConnection(server) as slow:
        slow.send(f"connection: close\r\ncontent-length: {len(body)}\r\n", body)
        finished = threading.Semaphore(0)
        unsubscribe = llm.engine.on(Finished, lambda _: finished.release())
        with server.client(max_retries=0) as client:
            assert client.completions.create(**ASK).choices[0].finish_reason
        for _ in range(64 + 1):
            assert finished.acquire(timeout=60)  # the engine did not wait for the reader
        unsubscribe()
        events = slow.read_to_end()
    assert events.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert events.count(b'"finish_reason":"length"') == 64
