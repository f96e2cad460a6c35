"""Points about what a server may lack: right answers pass, wrong ones fail; both written out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance import paragon
from tests.conformance.liar import Json, Liar, Lie
from toolkit.conformance import run

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"


@pytest.fixture(autouse=True)
def honest_afterwards(liar: Liar) -> Iterator[None]:
    yield
    liar.lie = Lie()


def verdict(liar: Liar, point: str, path: str, answer: Callable[[Json], Any]) -> str:
    liar.lie = Lie(instead={path: answer})
    (finding,) = run(liar.url, model="tiny", only=point).findings
    return finding.verdict


@pytest.mark.parametrize(
    "point", ["required", "named", "none", "auto", "stream", "cut"], ids="tools/{}".format
)
def test_right_tool_calls_pass(liar: Liar, point: str) -> None:
    assert verdict(liar, f"tools/{point}", CHAT, paragon.tool_chat) == "pass"


@pytest.mark.parametrize("point", ["json_schema", "json_schema_stream", "json_object", "cut"])
def test_right_structured_answers_pass(liar: Liar, point: str) -> None:
    assert verdict(liar, f"structured/{point}", CHAT, paragon.structured_chat) == "pass"


@pytest.mark.parametrize("point", ["shape", "base64", "inputs"])
def test_right_embeddings_pass(liar: Liar, point: str) -> None:
    assert verdict(liar, f"embeddings/{point}", EMBEDDINGS, paragon.embeddings) == "pass"


@pytest.mark.parametrize("point", ["shape", "stream"])
def test_right_responses_pass(liar: Liar, point: str) -> None:
    assert verdict(liar, f"responses/{point}", RESPONSES, paragon.response) == "pass"


def test_a_right_tokenizer_passes(liar: Liar) -> None:
    instead = {"/tokenize": paragon.tokenize, "/detokenize": paragon.detokenize}
    liar.lie = Lie(instead=instead)
    assert run(liar.url, model="tiny", only="extras/tokenize").findings[0].verdict == "pass"
    liar.lie = Lie(instead={**instead, "/detokenize": lambda body: {"prompt": "x"}})
    assert run(liar.url, model="tiny", only="extras/tokenize").findings[0].verdict == "fail"


def _call(name: str = "get_weather", arguments: str = paragon.WEATHER, **fields: Any) -> Json:
    return {**paragon.tool_call(name, arguments), **fields}


def _whole(call: Json, reason: str = "tool_calls") -> Callable[[Json], Any]:
    return lambda body: paragon.chat({"tool_calls": [call]}, reason)


def _streamed(
    alter: Callable[[list[Json]], object], reason: str = "tool_calls"
) -> Callable[[Json], Any]:
    def answer(body: Json) -> Any:
        deltas = paragon.copied(paragon.tool_deltas(_call()))
        alter([delta["tool_calls"][0] for delta in deltas])
        return paragon.chat_stream(deltas, reason)

    return answer


WRONG_TOOLS: dict[str, tuple[str, Callable[[Json], Any]]] = {
    "text in place of a call": ("required", lambda body: paragon.chat({"content": "Sunny."})),
    "an undeclared tool": ("required", _whole(_call("get_lost"))),
    "arguments that are no JSON": ("required", _whole(_call(arguments="{'city'"))),
    "arguments against the schema": ("required", _whole(_call(arguments='{"city": "Rome"}'))),
    "arguments as an object": (
        "required",
        _whole(_call(function={"name": "get_weather", "arguments": {"city": "Oslo"}})),
    ),
    "no id": ("required", _whole(_call(id=""))),
    "finish_reason stop": ("required", _whole(_call(), "stop")),
    "another tool than the named one": ("named", _whole(_call())),
    "a call, though none was allowed": ("none", _whole(_call())),
    "the id with every delta": (
        "stream",
        _streamed(lambda deltas: [delta.update(id="call_1") for delta in deltas]),
    ),
    "the name with every delta": (
        "stream",
        _streamed(lambda deltas: [d["function"].update(name="get_weather") for d in deltas]),
    ),
    "no index": ("stream", _streamed(lambda deltas: [delta.pop("index") for delta in deltas])),
    "a piece of arguments lost": (
        "stream",
        _streamed(lambda deltas: deltas[1]["function"].update(arguments="")),
    ),
    "a stream that hides that it called": ("stream", _streamed(lambda deltas: None, "stop")),
    "a cut call that says tool_calls": ("cut", _whole(_call(arguments='{"ci'))),
}


@pytest.mark.parametrize("what", WRONG_TOOLS)
def test_wrong_tool_calls_fail(liar: Liar, what: str) -> None:
    point, answer = WRONG_TOOLS[what]
    assert verdict(liar, f"tools/{point}", CHAT, answer) == "fail"


@pytest.mark.parametrize(
    ("point", "text"),
    [
        ("json_schema", "Ada, who is 36"),
        ("json_schema", '{"name": "Ada", "age": 36}'),
        ("json_schema", '{"name": "Ada", "age": true, "is_alive": true}'),
        ("json_schema", '{"name": "Ada", "age": 200, "is_alive": true}'),
        ("json_schema", '{"name": "Eve", "age": 36, "is_alive": true}'),
        ("json_schema", '{"name": "Ada", "age": 36, "is_alive": true, "mood": 1}'),
        ("json_object", "[1, 2]"),
        ("json_object", "{"),
    ],
)
def test_wrong_structured_answers_fail(liar: Liar, point: str, text: str) -> None:
    answer = paragon.chat({"content": text})
    assert verdict(liar, f"structured/{point}", CHAT, lambda body: answer) == "fail"


def test_json_that_hides_that_it_was_cut_fails(liar: Liar) -> None:
    answer = paragon.chat({"content": '{"na'}, "stop")
    assert verdict(liar, "structured/cut", CHAT, lambda body: answer) == "fail"


def _other_numbers(body: Json) -> Json:
    coded = body.get("encoding_format") == "base64"
    return paragon.embeddings(body | ({"input": "other"} if coded else {"input": "x"}))


@pytest.mark.parametrize(
    ("point", "answer"),
    [
        ("shape", lambda body: paragon.embeddings(body) | {"usage": None}),
        ("base64", lambda body: paragon.embeddings({**body, "encoding_format": "float"})),
        ("base64", _other_numbers),
        ("inputs", lambda body: paragon.embeddings({**body, "input": "one"})),
    ],
)
def test_wrong_embeddings_fail(liar: Liar, point: str, answer: Callable[[Json], Any]) -> None:
    assert verdict(liar, f"embeddings/{point}", EMBEDDINGS, answer) == "fail"


def _events(alter: Callable[[list[Json]], Any]) -> Callable[[Json], Any]:
    def answer(body: Json) -> Any:
        told = paragon.copied(paragon.response(body))
        return alter(told) if body.get("stream") else told

    return answer


@pytest.mark.parametrize(
    ("point", "answer"),
    [
        ("shape", lambda body: {**paragon.response(body), "output": None}),
        ("shape", lambda body: {**paragon.response(body), "status": "incomplete"}),
        ("stream", _events(lambda told: told[:-1])),
        ("stream", _events(lambda told: told[1:])),
        ("stream", _events(lambda told: [told[0], *told[2:]])),
        ("stream", _events(lambda told: [{**event, "sequence_number": 0} for event in told])),
    ],
)
def test_wrong_responses_fail(liar: Liar, point: str, answer: Callable[[Json], Any]) -> None:
    assert verdict(liar, f"responses/{point}", RESPONSES, answer) == "fail"
