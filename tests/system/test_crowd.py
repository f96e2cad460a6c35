"""Five hundred streams at once: some clients leave, some read slowly, the others get it all."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.system.aftermath import require_at_rest
from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.generation import Generation
from toolkit.server.sse import AnswerStream

pytestmark = pytest.mark.slow

NUM_STREAMS = 500
PATIENCE_S = 300.0
# A slow reader takes so many bytes at a time, and lets everybody else run in between.
SLOW_READ_BYTES = 64
SLOW_PAUSE_S = 0.02
MAX_GROWTH_MIB = 32


@dataclass(frozen=True)
class Client:
    """What one client does."""

    number: int
    max_tokens: int
    leaves_after_bytes: int | None
    is_slow: bool


@dataclass(frozen=True)
class Ended:
    """What a client that stayed has read."""

    client: Client
    text: str


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_num_seqs=64, num_kv_blocks=1024) as llm:
        yield llm


@pytest.fixture(scope="module")
def server(llm: LLM) -> Iterator[Server]:
    with serve(llm, port=0, served_model_name="toolkit-demo") as server:
        yield server


def crowd(seed: int) -> list[Client]:
    """A third leaves at some point, from before the answer to after it; a tenth reads slowly."""
    draw = random.Random(seed)
    clients = []
    for number in range(NUM_STREAMS):
        leaves = draw.random() < 1 / 3
        clients.append(
            Client(
                number=number,
                max_tokens=draw.randint(1, 40),
                leaves_after_bytes=draw.randint(0, 6000) if leaves else None,
                is_slow=draw.random() < 1 / 10,
            )
        )
    return clients


async def meet(port: int, clients: list[Client]) -> list[Ended]:
    """Let all clients talk to the server at once; return what those have read that stayed."""
    answers = await asyncio.wait_for(
        asyncio.gather(*(talk(port, client) for client in clients)), PATIENCE_S
    )
    return [answer for answer in answers if answer is not None]


async def talk(port: int, client: Client) -> Ended | None:
    """Ask for a stream, and read it to its end, or leave."""
    # With a small buffer, what a slow client does not read stays with the server.
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    body = {
        "model": "toolkit-demo",
        "prompt": f"Question {client.number}: " + "why? " * (client.number % 20),
        "max_tokens": client.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "seed": client.number,
    }
    content = json.dumps(body).encode()
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content) + content
    )
    received = b""
    try:
        while client.leaves_after_bytes is None or len(received) < client.leaves_after_bytes:
            part = await reader.read(SLOW_READ_BYTES if client.is_slow else 65536)
            received += part
            if not part:
                return Ended(client, received.decode())
            if client.is_slow:
                await asyncio.sleep(SLOW_PAUSE_S)
        return None
    finally:
        writer.transport.abort() if client.leaves_after_bytes is not None else writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def require_whole(ended: Ended) -> None:
    """Fail unless the stream ended with [DONE], after a usage that counts its tokens."""
    head, _, rest = ended.text.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK"), ended.text[:500]
    assert "transfer-encoding: chunked" in head
    # Events never hold a line break, so what lies between them of the chunks' sizes is plain.
    lines = [line.removeprefix("data: ") for line in rest.split("\n") if line[:6] == "data: "]
    assert lines.pop() == "[DONE]", rest[-500:]
    *chunks, last = map(json.loads, lines)
    token_ids = [
        token_id
        for chunk in chunks
        for choice in chunk["choices"]
        for token_id in choice["token_ids"]
    ]
    ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert len(ends) == 1
    assert last["usage"]["completion_tokens"] == len(token_ids)
    if ends == ["length"]:
        assert len(token_ids) == ended.client.max_tokens


def num_own_threads() -> int:
    """Threads but those of pools, which grow to their size and stay."""
    pools = ("asyncio_", "AnyIO worker")
    return sum(not thread.name.startswith(pools) for thread in threading.enumerate())


def num_calls_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, Generation | AnswerStream) for each in gc.get_objects())


def resident_mib() -> float:
    """The memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_crowd_is_served_and_leaves_nothing_behind(llm: LLM, server: Server) -> None:
    num_threads = num_files = 0
    memory_mib = 0.0
    for seed in range(3):
        clients = crowd(seed)
        staying = {client for client in clients if client.leaves_after_bytes is None}
        ended = asyncio.run(meet(server.port, clients))
        assert {answer.client for answer in ended} >= staying
        for answer in ended:
            require_whole(answer)
        require_at_rest(llm)
        assert httpx.get(f"{server.url}/load").json() == {"server_load": 0}
        assert num_calls_in_memory() == 0
        if seed == 0:  # whatever is made once has been made
            num_threads, num_files = num_own_threads(), len(os.listdir("/proc/self/fd"))
            memory_mib = resident_mib()
    assert num_own_threads() <= num_threads
    assert len(os.listdir("/proc/self/fd")) <= num_files
    # The record of a thousand requests and their tokens takes a few MiB.
    assert resident_mib() < memory_mib + MAX_GROWTH_MIB
