"""A server that knows nothing but when its tokens are to come, and notes when it wrote them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FakeServer", "fake_server"]

STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class FakeServer:
    """Answers /v1/completions and /v1/chat/completions as the model's name says.

    "tokens": max_tokens tokens, ``gap_s`` apart. "pairs": two tokens in each piece. "silent": no
    usage. "broken": an error after the first token. "garbage": no JSON after the first token.
    "cut": the connection ends after the first token. "busy": 429. "stuck": nothing ever.
    "closing": the connection is closed after each answer, without saying so.
    """

    gap_s: float = 0.004
    written_s: dict[str, list[float]] = field(default_factory=dict)  # by the answer's id
    bodies: list[dict[str, Any]] = field(default_factory=list)
    received_s: list[float] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    num_connections: int = 0
    num_open: int = 0  # answers under way
    most_open: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
                content = await reader.readexactly(int(length or 0))
                self.received_s.append(time.perf_counter())
                self.heads.append(head)
                self.num_open += 1
                self.most_open = max(self.most_open, self.num_open)
                try:
                    goes_on = await self.answer(writer, json.loads(content) if content else {})
                finally:
                    self.num_open -= 1
                if not goes_on:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        """Answer one request; return whether another may come."""
        if not body:
            write_json(writer, 200, {"data": [{"id": "tokens"}]})
            return True
        self.bodies.append(body)
        kind = body["model"]
        if kind == "busy":
            write_json(writer, 429, {"error": {"message": "try again later"}})
            return True
        writer.write(STREAM.encode())
        if kind == "stuck":
            await asyncio.sleep(60)
        name = f"answer-{len(self.bodies)}"
        written = self.written_s[name] = []
        for index in range(body["max_tokens"]):
            await asyncio.sleep(self.gap_s)
            if index == 1 and kind in ("broken", "garbage", "cut"):
                return self.spoil(writer, kind)
            is_last = index == body["max_tokens"] - 1
            if kind == "pairs" and index % 2 == 0 and not is_last:
                continue
            written.append(time.perf_counter())
            write_event(writer, chunk(name, body, "length" if is_last else None))
        usage = {"prompt_tokens": 11, "completion_tokens": body["max_tokens"]}
        if kind != "silent":
            write_event(writer, {"id": name, "choices": [], "usage": usage})
        write_event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return kind != "closing"

    def spoil(self, writer: asyncio.StreamWriter, kind: str) -> bool:
        if kind == "cut":
            return False
        write_event(writer, {"error": {"message": "broke"}} if kind == "broken" else "{no json")
        return True


def chunk(name: str, body: dict[str, Any], reason: str | None) -> dict[str, Any]:
    if "messages" in body:
        choice: dict[str, Any] = {"index": 0, "delta": {"content": "x"}, "finish_reason": reason}
    else:
        choice = {"index": 0, "text": "x", "finish_reason": reason}
    return {"id": name, "choices": [choice]}


def write_event(writer: asyncio.StreamWriter, event: Any) -> None:
    text = event if isinstance(event, str) else json.dumps(event)
    data = f"data: {text}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def write_json(writer: asyncio.StreamWriter, status: int, value: Any) -> None:
    content = json.dumps(value).encode()
    writer.write(
        b"HTTP/1.1 %d X\r\nServer: fake\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(content), content)
    )


@contextmanager
def fake_server(gap_s: float = 0.004) -> Iterator[FakeServer]:
    """Run one in a thread of its own, on a free port."""
    fake = FakeServer(gap_s=gap_s)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(fake.serve, "127.0.0.1", 0, backlog=1024))
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
