"""Paged, chunked, preempted, shared: the tokens are still transformers' own, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.checkpoints import CONFIGS, write_checkpoint
from tests.system.reference_tokens import assert_tokens_equal_transformers
from toolkit.demo import WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONFIGS, "bundled"])
def test_tokens_equal_transformers_under_preemption_chunks_and_sharing(
    name: str, tmp_path: Path, add_row: Callable[..., None]
):
    folder = WEIGHTS if name == "bundled" else write_checkpoint(tmp_path, CONFIGS[name])
    assert_tokens_equal_transformers(name, folder, add_row)
