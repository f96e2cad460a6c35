"""What cannot be divided is refused before anything is started, with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.checkpoints import write_checkpoint
from tests.models.fallbacks import ministral
from tests.runtime.tensor_parallel.processes import load, workers_of
from toolkit.errors import InvalidConfig


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"tensor_parallel": 0}, "1 or more"),
        ({"tensor_parallel": "2"}, "number of processes"),
        ({"tensor_parallel": True}, "number of processes"),
        ({"tensor_parallel": 4}, "6 attention heads.*choose 1 or 2"),
        ({"tensor_parallel": 2, "quantization": "int8"}, "leave quantization='int8' out"),
        ({"tensor_parallel": 2, "batch_invariant": True}, "leave batch_invariant=True out"),
    ],
    ids=str,
)
def test_settings_that_go_with_no_division(folder: Path, settings: dict, why: str):
    with pytest.raises(InvalidConfig, match=f"(?s)tensor_parallel=.*{why}"):
        load(folder, **settings)
    assert workers_of() == []


def test_a_model_in_transformers_own_code(tmp_path: Path):
    folder = write_checkpoint(tmp_path, ministral())
    with pytest.raises(InvalidConfig, match=r"tensor_parallel=2: .*transformers' own code"):
        load(folder, tensor_parallel=2)
    assert workers_of() == []
