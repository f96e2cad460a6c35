"""A server whose model says what tests tell it to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.server.responses.talking import TEMPLATE, speaker
from toolkit.llm import LLM
from toolkit.server import Server, serve


@pytest.fixture(scope="session")
def talker(model_folder: Path) -> Iterator[Server]:
    with (
        LLM(str(model_folder), max_num_seqs=8, num_kv_blocks=128, chat_template=TEMPLATE) as llm,
        serve(llm, port=0, served_model_name="tiny", processors={"say": speaker(llm)}) as server,
    ):
        yield server


@pytest.fixture
def talk(talker: Server) -> Iterator[openai.OpenAI]:
    with talker.client(max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def talk_http(talker: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=talker.url, timeout=60) as http:
        yield http


@pytest.fixture
def post(http: httpx.Client) -> Any:
    """Post a body to the tiny model."""

    def post(**fields: Any) -> httpx.Response:
        body = {"model": "tiny", "input": "Hello", "max_output_tokens": 4, **fields}
        return http.post("/v1/responses", json=body)

    return post
