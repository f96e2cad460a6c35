"""What must not hurt the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toolkit.conformance.check import Points
from toolkit.conformance.probe import CHAT, Probe
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("robustness")


def _still_answers(probe: Probe) -> None:
    answer = probe.chat(max_tokens=2)
    expect(answer["choices"], "the next call has no choices", answer)


@POINTS.must(
    "disconnect",
    what="a client that leaves a stream early does no harm",
    why="users close tabs and press stop",
)
def _disconnect(probe: Probe) -> None:
    for _ in range(3):
        body = probe.chat_body({"stream": True, "max_tokens": 200})
        with probe.open_stream(CHAT, body) as response:
            next(response.iter_lines())
    _still_answers(probe)


@POINTS.must(
    "concurrent",
    what="eight calls of different kinds at once get eight answers of their own",
    why="batch() of LangChain, agents that work in parallel",
)
def _concurrent(probe: Probe) -> None:
    def whole(limit: int) -> tuple[str, int, int]:
        body = probe.chat_body({"max_tokens": limit})
        answer = probe.ok(probe.post(CHAT, body))
        return answer["id"], answer["usage"]["completion_tokens"], limit

    def streamed(limit: int) -> tuple[str, int, int]:
        body = probe.chat_body(
            {"max_tokens": limit, "stream": True, "stream_options": {"include_usage": True}}
        )
        stream = probe.stream(CHAT, body)
        expect(stream.is_done, "a stream without [DONE]", stream.payloads[-1:])
        last = stream.chunks[-1]
        return last["id"], last["usage"]["completion_tokens"], limit

    kinds: list[Callable[[int], tuple[str, int, int]]] = [whole, streamed]
    with ThreadPoolExecutor(max_workers=8) as pool:
        running = [pool.submit(kinds[i % 2], 3 + 4 * i) for i in range(8)]
        answers = [each.result() for each in running]
    expect(len({api_id for api_id, _, _ in answers}) == 8, "answers share ids", answers)
    for _, spent, limit in answers:
        expect(spent <= limit, f"{spent} tokens where {limit} were allowed", answers)


@POINTS.must(
    "lone_surrogate",
    what="half a surrogate pair does not break the server",
    why="text that was cut in the middle of an emoji",
)
def _lone_surrogate(probe: Probe) -> None:
    body = probe.chat_body({"messages": [{"role": "user", "content": "cut: @@"}], "max_tokens": 2})
    raw = _as_bytes(body).replace(b"@@", b"\\ud83d")
    answer = probe.post(CHAT, raw)
    expect(answer.status in (200, 400, 422), f"status {answer.status}", answer.text)
    _still_answers(probe)


@POINTS.must(
    "deep_nesting",
    what="deeply nested JSON does not break the server",
    why="one hostile body must not end everybody's answers",
)
def _deep(probe: Probe) -> None:
    raw = b'{"model": "x", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    answer = probe.post(CHAT, raw)
    expect(400 <= answer.status < 500, f"status {answer.status}", answer.text)
    _still_answers(probe)


@POINTS.must(
    "bad_utf8",
    what="bytes that are no UTF-8 do not break the server",
    why="clients that send Latin-1",
)
def _bad_utf8(probe: Probe) -> None:
    answer = probe.post(CHAT, b'{"model": "x", "messages": [{"role": "user", "content": "\xff"}]}')
    expect(400 <= answer.status < 500, f"status {answer.status}", answer.text)
    _still_answers(probe)


def _as_bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
