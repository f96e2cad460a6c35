"""What vLLM's servers have beside OpenAI's endpoints, and headers."""

from __future__ import annotations

from toolkit.conformance.check import Points
from toolkit.conformance.probe import CHAT, Probe
from toolkit.conformance.verdicts import NotSupported, expect

__all__ = ["POINTS"]

POINTS = Points("extras")


@POINTS.should(
    "tokenize",
    what="/tokenize and /detokenize invert each other",
    why="LangChain's token counters; whoever sends token ids",
)
def _tokenize(probe: Probe) -> None:
    text = "Hello world, naïve 日本語"
    found = probe.endpoint(
        "/tokenize", {"model": probe.model, "prompt": text, "add_special_tokens": False}
    )
    expect(found["count"] == len(found["tokens"]) > 0, "count is another number", found)
    body = {"model": probe.model, "tokens": found["tokens"]}
    back = probe.endpoint("/detokenize", body)
    expect(back["prompt"].strip() == text, "another text came back", back)


@POINTS.should(
    "request_id", what="X-Request-Id is answered, and echoed if sent", why="logs join by it"
)
def _request_id(probe: Probe) -> None:
    plain = probe.post(CHAT, probe.chat_body({"max_tokens": 1}))
    expect(plain.headers.get("x-request-id"), "no X-Request-Id", str(dict(plain.headers)))
    sent = probe.post(CHAT, probe.chat_body({"max_tokens": 1}), headers={"x-request-id": "mine-7"})
    if sent.headers.get("x-request-id") != "mine-7":
        probe.note("an id that the client sends is not echoed")


@POINTS.should("health", what="GET /health is 200", why="load balancers and containers ask it")
def _health(probe: Probe) -> None:
    answer = probe.get("/health")
    if answer.status == 404:
        raise NotSupported("GET /health answers 404")
    expect(answer.status == 200, f"status {answer.status}", answer.text)


@POINTS.should(
    "metrics", what="GET /metrics is Prometheus' text format", why="monitoring scrapes it"
)
def _metrics(probe: Probe) -> None:
    answer = probe.get("/metrics")
    if answer.status in (404, 501):
        raise NotSupported(f"GET /metrics answers {answer.status}")
    expect(answer.status == 200, f"status {answer.status}", answer.text)
    expect("# TYPE " in answer.text, "no # TYPE line", answer.text)
