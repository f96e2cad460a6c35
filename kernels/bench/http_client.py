"""Measure what reading a piece of a stream costs the client: ours, httpx, and a bare socket loop.

    python kernels/bench/http_client.py [--repeats 5]

A process that knows no model writes 64 streams of pieces as vLLM does, each a write of its own.
The figure is the client's processor time per piece, which others on the machine hardly disturb; its
inverse is what one client process can read at best. The bare loop (stream_client.py) keeps bytes
and understands nothing until all has ended: a floor. Writes results/http_client.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import httpx
from common import save, spread
from stream_client import read_streams

from toolkit.client.exchange import Answer
from toolkit.client.load import Item, Load
from toolkit.client.target import Target

NUM_STREAMS = 64
NUM_PIECES = 200
GAP_S = 0.01
BODY = {"model": "m", "prompt": [5] * 128, "max_tokens": NUM_PIECES, "stream": True}


def serve(found: Connection) -> None:
    """Answer on a free port, which is sent through ``found``; every request alike."""
    asyncio.run(_serve(found))


async def _serve(found: Connection) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
    found.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chunk = {
        "id": "cmpl-0123456789abcdef0123456789abcdef",
        "object": "text_completion",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": 0, "text": " word", "logprobs": None, "finish_reason": None}],
        "usage": None,
    }
    piece = _chunked(f"data: {json.dumps(chunk)}\n\n")
    usage = {"prompt_tokens": 128, "completion_tokens": NUM_PIECES}
    last = json.dumps({**chunk, "choices": [], "usage": usage})
    end = _chunked(f"data: {last}\n\n") + _chunked("data: [DONE]\n\n") + b"0\r\n\r\n"
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(NUM_PIECES):
                await asyncio.sleep(GAP_S)
                writer.write(piece)
            writer.write(end)
            if b"connection: close" in head:
                writer.close()
                return
    except asyncio.IncompleteReadError:
        writer.close()


def _chunked(text: str) -> bytes:
    content = text.encode()
    return b"%x\r\n%b\r\n" % (len(content), content)


def ours(port: int) -> int:
    """Read all streams with a client process's load; return the number of pieces."""

    async def run() -> int:
        answers: list[Answer] = []
        load = Load(Target(url=f"http://127.0.0.1:{port}"), answers.append, timeout_s=60.0)
        body = json.dumps(BODY).encode()
        load.add([Item(number, 0.0, -1, body) for number in range(NUM_STREAMS)])
        load.add_no_more()
        await load.prepare()
        await load.run(time.perf_counter())
        return sum(len(answer.pieces_s) for answer in answers)

    return asyncio.run(run())


def with_httpx(port: int) -> int:
    """Read them with httpx, line by line, as most clients do."""

    async def ask(client: httpx.AsyncClient) -> int:
        times_s = []
        async with client.stream("POST", "/v1/completions", json=BODY) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                    times_s.append(time.perf_counter())
        return len(times_s)

    async def run() -> int:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            return sum(await asyncio.gather(*(ask(client) for _ in range(NUM_STREAMS))))

    return asyncio.run(run())


def bare(port: int) -> int:
    """Read them with one loop over sockets, and look at the bytes at the end."""
    streams = read_streams(port, "/v1/completions", [BODY] * NUM_STREAMS)
    return sum(len(stream["pieces"]) for stream in streams)


CLIENTS: dict[str, Callable[[int], int]] = {"toolkit": ours, "httpx": with_httpx, "bare": bare}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    port = here.recv()
    us_per_piece: dict[str, list[float]] = {name: [] for name in CLIENTS}
    for repeat in range(options.repeats + 1):
        for name, read in CLIENTS.items():
            cpu_s = time.process_time()
            num_pieces = read(port)
            assert num_pieces == NUM_STREAMS * NUM_PIECES
            if repeat > 0:  # the first warms up
                us_per_piece[name].append(1e6 * (time.process_time() - cpu_s) / num_pieces)
    server.terminate()
    results: dict[str, Any] = {
        name: {
            "cpu_us_per_piece": spread(values),
            "pieces_per_cpu_s": spread([1e6 / value for value in values]),
        }
        for name, values in us_per_piece.items()
    }
    settings = {"num_streams": NUM_STREAMS, "num_pieces": NUM_PIECES, "gap_s": GAP_S}
    save("http_client", {"settings": settings, "clients": results})


if __name__ == "__main__":
    main()
