"""The bundled model, which was taught to call tools, goes through the whole loop by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from tests.server.responses.events import read_events, replayed, require_response
from toolkit.server import Server, serve

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
QUESTION = "What is the weather in Rome?"

pytestmark = pytest.mark.slow


@tool
def get_weather(city: str) -> str:
    """Get the current weather in a city."""
    return json.dumps({"temperature": 20, "condition": "sunny"})


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with serve(port=0) as server:
        yield server


@pytest.fixture
def ask(demo: Server) -> Iterator[Any]:
    with httpx.Client(base_url=demo.url, timeout=120) as http:

        def ask(**fields: Any) -> httpx.Response:
            return http.post("/v1/responses", json={"input": QUESTION, "temperature": 0, **fields})

        yield ask


def test_it_calls_a_tool_and_says_what_came_of_it(ask: Any) -> None:
    asked = require_response(ask(tools=[WEATHER]).json())
    (call,) = asked["output"]
    assert call["type"] == "function_call"
    assert json.loads(call["arguments"]) == {"city": "Rome"}
    output = {
        "type": "function_call_output",
        "call_id": call["call_id"],
        "output": '{"temperature": 20, "condition": "sunny"}',
    }
    answered = require_response(
        ask(input=[output], previous_response_id=asked["id"], tools=[WEATHER]).json()
    )
    (message,) = answered["output"]
    assert "20 degrees" in message["content"][0]["text"]


def test_its_calls_stream(ask: Any) -> None:
    events = read_events(ask(tools=[WEATHER], stream=True))
    (call,) = replayed(events)
    assert json.loads(call["arguments"]) == {"city": "Rome"}
    num_pieces = sum(e["type"] == "response.function_call_arguments.delta" for e in events)
    assert num_pieces > 0


def test_its_answers_have_the_form_that_was_asked_for(demo: Server) -> None:
    with demo.client() as client:
        parsed = client.responses.parse(
            model=client.models.list().data[0].id, input=QUESTION, text_format=Weather
        )
    assert isinstance(parsed.output_parsed, Weather)


def test_langchain_goes_round_with_it(demo: Server) -> None:
    chat = demo.langchain(use_responses_api=True, temperature=0).bind_tools([get_weather])
    asked = chat.invoke(QUESTION)
    (call,) = asked.tool_calls
    answered = chat.invoke([("user", QUESTION), asked, get_weather.invoke(call)])
    assert "20 degrees" in answered.text
