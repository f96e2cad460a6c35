"""A process that opens many streams of an OpenAI-compatible server and notes when bytes arrive.

Used by http_throughput.py and busy_kernel.py. It does as little as it can while it reads, since it
shares the machine with the server: one thread waits on all sockets and keeps what it gets; JSON is
parsed when all streams have ended.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["StreamClient", "read_streams"]


class StreamClient:
    """The parent's side; a context manager."""

    def __enter__(self) -> StreamClient:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)

    def stream(self, port: int, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send all bodies at once; return, for each stream, what came and when.

        Times are those of ``time.perf_counter``, which all processes of a machine share.

        Returns:
            Dicts with sent_s, first_byte_s, first_text_s, end_s, pieces (pairs of time and text)
            and num_tokens (of the usage chunk).
        """
        self._process.stdin.write(json.dumps({"port": port, "path": path, "bodies": bodies}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """Serve jobs, one per line of standard input."""
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(read_streams(job["port"], job["path"], job["bodies"])), flush=True)


def read_streams(port: int, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do in this process what ``StreamClient.stream`` does in another."""
    selector = selectors.DefaultSelector()
    streams = [
        {"arrivals": [], "socket": socket.create_connection(("127.0.0.1", port))} for _ in bodies
    ]
    for stream in streams:
        selector.register(stream["socket"], selectors.EVENT_READ, stream)
    for stream, body in zip(streams, bodies, strict=True):
        payload = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        stream["sent_s"] = time.perf_counter()
        stream["socket"].sendall(head.encode() + payload)
    num_open = len(streams)
    while num_open:
        for key, _ in selector.select():
            part = key.fileobj.recv(1 << 18)
            if part:
                key.data["arrivals"].append((time.perf_counter(), part))
            else:
                key.data["end_s"] = time.perf_counter()
                selector.unregister(key.fileobj)
                key.fileobj.close()
                num_open -= 1
    return [_parsed(stream) for stream in streams]


def _parsed(stream: dict[str, Any]) -> dict[str, Any]:
    """Give each event the time at which its last byte arrived."""
    whole = b"".join(part for _, part in stream["arrivals"])
    ends, num_bytes = [], 0
    for time_s, part in stream["arrivals"]:
        num_bytes += len(part)
        ends.append((num_bytes, time_s))
    pieces, num_tokens, place, at = [], None, whole.index(b"\r\n\r\n"), 0
    if not whole.startswith(b"HTTP/1.1 200"):
        raise SystemExit(whole[:1000].decode())
    while (start := whole.find(b"data: {", place)) >= 0:
        place = whole.index(b"\n\n", start)
        while ends[at][0] < place:
            at += 1
        chunk = json.loads(whole[start + 6 : place])
        if chunk.get("usage"):
            num_tokens = chunk["usage"]["completion_tokens"]
        for choice in chunk["choices"]:
            text = choice["text"] if "text" in choice else choice["delta"].get("content")
            if text:
                pieces.append((ends[at][1], text))
    return {
        "sent_s": stream["sent_s"],
        "first_byte_s": stream["arrivals"][0][0],
        "first_text_s": pieces[0][0] if pieces else None,
        "end_s": stream["end_s"],
        "pieces": pieces,
        "num_tokens": num_tokens,
    }


if __name__ == "__main__":
    main()
