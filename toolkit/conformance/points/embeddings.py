"""Embeddings; a server may lack them."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from openai.types import CreateEmbeddingResponse

from toolkit.conformance.check import Points
from toolkit.conformance.probe import Probe
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("embeddings")


def _embed(probe: Probe, content: Any, **fields: Any) -> dict[str, Any]:
    body = {"model": probe.model, "input": content, **fields}
    return probe.endpoint("/v1/embeddings", body)


def _close(a: list[float], b: list[float], tolerance: float) -> bool:
    return len(a) == len(b) and all(
        math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance) for x, y in zip(a, b, strict=True)
    )


@POINTS.must(
    "shape",
    what="an answer has OpenAI's fields with OpenAI's types",
    why="openai: client.embeddings.create; vector stores",
)
def _shape(probe: Probe) -> None:
    answer = _embed(probe, "Hello", encoding_format="float")
    require_keys(answer, "object", "data", "model", "usage")
    require_shape(probe, CreateEmbeddingResponse, answer)
    (item,) = answer["data"]
    expect(item["object"] == "embedding" and item["index"] == 0, "not OpenAI's item", item)
    expect(all(map(math.isfinite, item["embedding"])), "a number is not finite", item)
    expect(answer["usage"]["prompt_tokens"] > 0, "no tokens were counted", answer["usage"])


@POINTS.must(
    "base64",
    what="base64 holds the same float32 numbers",
    why="openai asks for base64 unless told otherwise",
)
def _base64(probe: Probe) -> None:
    floats = _embed(probe, "Hello", encoding_format="float")["data"][0]["embedding"]
    coded = _embed(probe, "Hello", encoding_format="base64")["data"][0]["embedding"]
    expect(isinstance(coded, str), "base64 was asked for, something else came", coded)
    raw = base64.b64decode(coded)
    decoded = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    expect(_close(floats, decoded, 1e-3), "other numbers", [floats[:4], decoded[:4]])


@POINTS.must(
    "inputs",
    what="input may be a list of texts, token ids, or a list of lists of them",
    why="LangChain's OpenAIEmbeddings sends token ids",
)
def _inputs(probe: Probe) -> None:
    for content, count in ((["Hello", "world"], 2), ([70, 71, 72], 1), ([[70], [71, 72]], 2)):
        data = _embed(probe, content)["data"]
        indices = [item["index"] for item in data]
        expect(indices == [*range(count)], f"{content}: numbered {indices}", data)


@POINTS.should(
    "batch_equal",
    what="a text has the same embedding in a batch as alone",
    why="an index that is built in batches is searched one by one",
)
def _batch_equal(probe: Probe) -> None:
    alone = _embed(probe, "Hello", encoding_format="float")["data"][0]["embedding"]
    texts = ["A much longer text stands before it.", "Hello"]
    batch = _embed(probe, texts, encoding_format="float")["data"][1]["embedding"]
    expect(_close(alone, batch, 2e-2), "other numbers", [alone[:4], batch[:4]])


@POINTS.should(
    "dimensions",
    what="dimensions is honoured or refused",
    why="a vector store with columns of one length",
)
def _dimensions(probe: Probe) -> None:
    size = len(_embed(probe, "Hello", encoding_format="float")["data"][0]["embedding"])
    wanted = max(1, size // 2)
    body = {"model": probe.model, "input": "Hello", "dimensions": wanted}
    answer = probe.ok(
        probe.post("/v1/embeddings", {**body, "encoding_format": "float"}), optional="dimensions"
    )
    got = len(answer["data"][0]["embedding"])
    expect(got == wanted, f"{wanted} dimensions were asked for, {got} came")


@POINTS.must(
    "empty",
    what="an empty input is a 400",
    why="openai: BadRequestError; an index of nothing is a bug of the caller",
)
def _empty(probe: Probe) -> None:
    _embed(probe, "Hello")  # a server without the endpoint refuses this too
    answer = probe.post("/v1/embeddings", {"model": probe.model, "input": []})
    expect(answer.status in (400, 422), f"status {answer.status}", answer.text)
    expect(answer.error, "no error object", answer.text)
