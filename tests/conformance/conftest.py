"""A correct server, and a liar in front of it that alters what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conformance.liar import Liar
from tests.server.tiny_model import write_tiny_model
from toolkit.llm import LLM
from toolkit.server import Server, serve

MODEL = "tiny"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    settings = json.loads((folder / "config.json").read_text())
    settings["max_position_embeddings"] = 2048  # two tools take 500 of its one-byte tokens
    (folder / "config.json").write_text(json.dumps(settings))
    with (
        LLM(str(folder), max_num_seqs=8, num_kv_blocks=512) as llm,
        serve(llm, port=0, served_model_name=MODEL) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def liar(server: Server) -> Iterator[Liar]:
    with Liar(server.url) as liar:
        yield liar
