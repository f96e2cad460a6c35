"""A tiny checkpoint, loaded whole and in two processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.checkpoints import CONFIGS, write_checkpoint
from tests.runtime.tensor_parallel.processes import load
from toolkit import LLM


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("llama"), CONFIGS["llama"])


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[LLM]:
    with load(folder) as llm:
        yield llm


@pytest.fixture(scope="module")
def two(folder: Path) -> Iterator[LLM]:
    with load(folder, tensor_parallel=2) as llm:
        yield llm
