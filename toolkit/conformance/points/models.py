"""The list of models."""

from __future__ import annotations

from openai.types import Model

from toolkit.conformance.check import Points
from toolkit.conformance.probe import CHAT, Probe
from toolkit.conformance.shapes import require_shape
from toolkit.conformance.verdicts import NotSupported, expect

__all__ = ["POINTS"]

POINTS = Points("models")
_UNKNOWN = "no-such-model-anywhere"


@POINTS.must("list", what="GET /v1/models lists models", why="openai: client.models.list()")
def _list(probe: Probe) -> None:
    listed = probe.ok(probe.get("/v1/models"))
    expect(listed.get("object") == "list", 'object is not "list"', listed)
    expect(listed["data"], "the list is empty", listed)
    for card in listed["data"]:
        require_shape(probe, Model, card)


@POINTS.must("one", what="GET /v1/models/{id} describes one", why="openai: client.models.retrieve")
def _one(probe: Probe) -> None:
    card = probe.ok(probe.get(f"/v1/models/{probe.model}"), optional="one model")
    require_shape(probe, Model, card)
    expect(card["id"] == probe.model, "another id than the one asked for", card)


@POINTS.should(
    "unknown_lists_names",
    what="the error about an unknown model names those that are served",
    why="whoever typed a wrong name learns the right one",
)
def _lists_names(probe: Probe) -> None:
    answer = probe.post(CHAT, probe.chat_body({"model": _UNKNOWN}))
    if answer.status == 200:
        raise NotSupported("the server answers to every name")
    expect(probe.model in answer.error["message"], "no served name in the message", answer.text)


@POINTS.must(
    "echoed",
    what="answers carry the name that was asked for",
    why="LangChain and tracing tools price and group calls by it",
)
def _echoed(probe: Probe) -> None:
    answer = probe.chat()
    if answer["model"] != probe.model:
        probe.note(f"asked for {probe.model!r}, the answer says {answer['model']!r}")
    expect(isinstance(answer["model"], str) and answer["model"], "model is no name", answer)
