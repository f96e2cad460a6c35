"""The openai package's helpers and LangChain work as they are."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from tests.server.responses.talking import ADD, call_text, saying
from toolkit.server import Server


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=99)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def chat(talker: Server) -> Any:
    """Whatever LangChain sends goes to /v1/responses."""
    return ChatOpenAI(
        model="tiny", base_url=f"{talker.url}/v1", api_key="EMPTY", use_responses_api=True
    )


def test_parse_returns_what_was_asked_for(talk: openai.OpenAI) -> None:
    parsed = talk.responses.parse(
        model="tiny", input="Hello", text_format=Person, extra_body={"seed": 0}
    )
    assert isinstance(parsed.output_parsed, Person)
    assert parsed.text is not None
    assert parsed.text.format is not None
    assert parsed.text.format.type == "json_schema"


def test_the_stream_helper_collects_the_response(talk: openai.OpenAI) -> None:
    fields: dict[str, Any] = saying(f"Let me see.\n{call_text(1, 2)}", tools=[ADD])
    tools = fields.pop("tools")
    with talk.responses.stream(
        model="tiny", input="1 + 2?", tools=tools, extra_body=fields
    ) as stream:
        text = "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )
        final = stream.get_final_response()
    assert text == final.output_text == "Let me see."
    call = final.output[1]
    assert call.type == "function_call"
    assert call.parsed_arguments == {"a": 1, "b": 2}


def test_the_stream_helper_parses(talk: openai.OpenAI) -> None:
    with talk.responses.stream(
        model="tiny", input="Hello", text_format=Person, extra_body={"seed": 0}
    ) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Person)


def test_the_async_client_streams(talker: Server) -> None:
    async def ask() -> list[str]:
        async with talker.async_client() as client:
            stream = await client.responses.create(
                model="tiny", input="Hello", stream=True, extra_body=saying("Hi")
            )
            return [event.type async for event in stream]

    kinds = asyncio.run(ask())
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_langchain_invokes_and_streams(chat: Any) -> None:
    told = chat.bind(extra_body=saying("Hello world"))
    whole = told.invoke("Hello")
    assert whole.text == "Hello world"
    assert whole.response_metadata["model_name"] == "tiny"
    assert whole.response_metadata["status"] == "completed"
    assert whole.id.startswith("resp_")
    pieces = list(told.stream("Hello"))
    joined = pieces[0]
    for piece in pieces[1:]:
        joined += piece
    assert joined.text == "Hello world"
    assert joined.usage_metadata == {
        **whole.usage_metadata,
        "input_token_details": joined.usage_metadata["input_token_details"],
    }
    assert asyncio.run(told.ainvoke("Hello")).text == "Hello world"


def test_langchain_goes_round_with_tools(chat: Any) -> None:
    bound = chat.bind_tools([add])
    question = HumanMessage("1 + 2?")
    asked = bound.invoke([question], extra_body=saying(f"Hm.\n{call_text(1, 2)}"))
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 1, "b": 2})
    result = add.invoke(call)
    assert isinstance(result, ToolMessage)
    answered = bound.invoke([question, asked, result], extra_body=saying("It is 3."))
    assert answered.text == "It is 3."


def test_langchain_streams_calls(chat: Any) -> None:
    joined = None
    bound = chat.bind_tools([add])
    for piece in bound.stream("1 + 2?", extra_body=saying(call_text(1, 2))):
        joined = piece if joined is None else joined + piece
    assert joined is not None
    (call,) = joined.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 1, "b": 2})


@pytest.mark.parametrize("choice", ["any", "add"])
def test_langchain_forces_calls(chat: Any, choice: str) -> None:
    answer = chat.bind_tools([add], tool_choice=choice, parallel_tool_calls=False).invoke("?")
    (call,) = answer.tool_calls
    assert call["name"] == "add"
    assert call["args"].keys() == {"a", "b"}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structured_output(chat: Any, method: str) -> None:
    answer = chat.with_structured_output(Person, method=method).invoke("Hello")
    assert isinstance(answer, Person)


def test_langchain_streams_structured_output(chat: Any) -> None:
    *_, last = chat.with_structured_output(Person, method="json_schema").stream("Hello")
    assert isinstance(last, Person)


def test_langchain_keeps_the_conversation_on_the_server(chat: Any) -> None:
    keeping = chat.model_copy(update={"use_previous_response_id": True})
    first = keeping.invoke("Hello", extra_body=saying("Hi"))
    second = keeping.invoke([HumanMessage("Hello"), first, HumanMessage("and")])
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]


def test_langchain_shows_reasoning(chat: Any) -> None:
    answer = chat.invoke("Hello", extra_body=saying("<think>Well.</think>Hi"))
    kinds = [block["type"] for block in answer.content]
    assert kinds == ["reasoning", "text"]
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0
