"""A tiny model behind a real server, and clients that talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.server.tiny_model import write_tiny_model
from toolkit.llm import LLM
from toolkit.server import Server, serve

MODEL = "tiny"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def llm(model_folder: Path) -> Iterator[LLM]:
    with LLM(str(model_folder), max_num_seqs=8, num_kv_blocks=128) as llm:
        yield llm


@pytest.fixture(scope="session")
def server(llm: LLM) -> Iterator[Server]:
    with serve(llm, port=0, served_model_name=[MODEL, "mosaicml/mpt-7b"]) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client(max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """What the openai package would not send, or would hide."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield http
