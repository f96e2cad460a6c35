"""Calls that no client would send: each is refused or answered, none breaks or holds anything."""

from __future__ import annotations

import random
import socket

from toolkit.llm import LLM
from toolkit.server import serve

NUM_CALLS = 300
BODIES = [
    b'{"prompt": "hi", "max_tokens": 1}',
    b"",
    b"\xff\xfe{}",
    b"[]",
    b"null",
    b"NaN",
    b'{"prompt": ' + b"9" * 5000 + b"}",
    b'{"a": ' * 200 + b"1" + b"}" * 200,
    b'{"prompt": "\\ud800"}',
    '{"prompt": "\ud800"}'.encode("utf-8", "surrogatepass"),
    b"x" * 50_000,
]
HEADERS = [
    "content-length: -5",
    "content-length: +5",
    "content-length: 5\r\ncontent-length: 6",
    "content-length: 99999999999999999999999",
    "content-length: many",
    "transfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: chunked\r\ncontent-length: 3",
    "expect: 100-continue",
    "upgrade: websocket\r\nconnection: upgrade",
    "content-type: text/plain",
    "content-encoding: gzip",
    "host: \x00",
    ": nameless",
    "x-request-id: " + "a" * 70_000,
]
PATHS = [
    "/v1/completions",
    "/v1/chat/completions",
    "//v1/completions",
    "/v1/../v1/models",
    "/%00",
    "/v1/models/%ff",
    "/engine/state",
    "*",
    "http://elsewhere/v1/models",
    "/v1/completions?" + "a" * 70_000,
    "/metrics?name[]=x",
    "/tokenize",
]


def hostile_call(rng: random.Random) -> bytes:
    body = rng.choice(BODIES)
    headers = ["host: x", "content-type: application/json", *rng.sample(HEADERS, rng.randint(0, 2))]
    if rng.random() < 0.6:
        headers.append(f"content-length: {len(body)}")
    method = rng.choice("POST POST POST GET PUT HEAD OPTIONS DELETE BREW".split())
    head = "\r\n".join([f"{method} {rng.choice(PATHS)} HTTP/1.1", *headers, "", ""])
    return head.encode("latin-1") + body


def test_no_call_is_answered_with_a_5xx_or_not_at_all(llm: LLM) -> None:
    rng = random.Random(0)
    with serve(llm, port=0, max_body_bytes=20_000, body_timeout_s=0.3) as server:
        place = ("127.0.0.1", server.port)
        for _ in range(NUM_CALLS):
            call = hostile_call(rng)
            with socket.create_connection(place, timeout=20) as connection:
                connection.sendall(call)
                if rng.random() < 0.5:
                    connection.shutdown(socket.SHUT_WR)
                try:
                    status = connection.recv(12)
                except ConnectionResetError:  # it was closed with bytes of ours unread
                    continue
            assert not status.startswith(b"HTTP/1.1 5"), call[:300]
            assert status.startswith(b"HTTP/1.1 ") or status == b"", call[:300]
        assert not [line for line in server.logs if "Traceback" in line or "ASGI" in line]
        with server.address.http_client() as http:
            assert http.get("/health").status_code == 200
    snapshot = llm.engine.snapshot()
    assert snapshot.running == snapshot.waiting == ()
    assert snapshot.blocks.used == 0
    llm.engine.scheduler.check()
