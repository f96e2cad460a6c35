"""LangChain's ChatOpenAI, as it is, against our server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from toolkit.llm import LLM
from toolkit.server import Server

QUESTION = "Hello world"


@pytest.fixture
def chat(server: Server) -> ChatOpenAI:
    return server.langchain(max_tokens=6, temperature=0)


def test_the_documentations_chat_runs_unchanged(server: Server) -> None:
    chat = ChatOpenAI(
        model="mosaicml/mpt-7b",
        openai_api_key="EMPTY",
        openai_api_base=f"http://localhost:{server.port}/v1",
        max_tokens=5,
        temperature=0,
    )
    answer = chat.invoke([SystemMessage(content="You translate."), HumanMessage(content=QUESTION)])
    assert answer.content
    assert answer.response_metadata["model_name"] == "mosaicml/mpt-7b"
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 5


def test_invoke_stream_and_batch_agree(chat: Any) -> None:
    whole = chat.invoke(QUESTION).content
    assert "".join(piece.content for piece in chat.stream(QUESTION)) == whole
    assert [answer.content for answer in chat.batch([QUESTION] * 3)] == [whole] * 3


def test_the_coroutines_agree_too(chat: Any) -> None:
    async def ask() -> tuple[str, str, list[str]]:
        whole = (await chat.ainvoke(QUESTION)).content
        pieces = [piece.content async for piece in chat.astream(QUESTION)]
        batch = await chat.abatch([QUESTION] * 2)
        return whole, "".join(pieces), [answer.content for answer in batch]

    whole, streamed, batch = asyncio.run(ask())
    assert streamed == whole
    assert batch == [whole] * 2


def test_streamed_usage_comes_when_asked_for(server: Server) -> None:
    # Which answer is drawn depends on how many came before; this one does not end by itself.
    extra = {"ignore_eos": True}
    chat = server.langchain(max_tokens=4, stream_usage=True, extra_body=extra)
    pieces = list(chat.stream(QUESTION))
    usages = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert [usage["output_tokens"] for usage in usages] == [4]


def test_logprobs_and_stop_reach_the_caller(chat: Any) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    content = answer.response_metadata["logprobs"]["content"]
    joined = b"".join(bytes(entry["bytes"]) for entry in content)
    assert joined.decode(errors="replace") == answer.content
    stop = answer.content[2]
    cut = chat.invoke(QUESTION, stop=[stop]).content
    assert cut == answer.content[: answer.content.index(stop)]


def test_tokens_are_counted_as_the_model_counts_them(server: Server, llm: LLM) -> None:
    chat = server.langchain(max_tokens=1)
    assert chat.get_num_tokens("Hello world") == len(
        llm.tokenizer.encode("Hello world", add_special_tokens=False)
    )
    messages = [SystemMessage("Be brief."), HumanMessage("Hello")]
    usage = chat.invoke(messages).usage_metadata
    assert chat.get_num_tokens_from_messages(messages) == usage["input_tokens"]

    def weather(city: str) -> str:
        """Say how the weather is."""
        return city

    usage = chat.bind_tools([weather]).invoke(messages).usage_metadata
    assert chat.get_num_tokens_from_messages(messages, tools=[weather]) == usage["input_tokens"]
