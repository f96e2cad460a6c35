"""The readers against published traces, where somebody has them: $TOOLKIT_TRACES names the folder.

The statistics are computed from the published files themselves; see the README beside them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from toolkit.experiments import Workload


def trace(name: str) -> Path:
    folder = os.environ.get("TOOLKIT_TRACES")
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        pytest.skip(f"$TOOLKIT_TRACES names no folder with {name}")
    return path


def test_azures_conversations_of_2023() -> None:
    w = Workload.from_trace(trace("azure_2023_conv.csv"), format="azure")
    value = w.describe().value
    assert len(w) == 19_366
    assert value.rate == pytest.approx(5.53, abs=0.005)
    assert value.gap_cv == pytest.approx(1.09, abs=0.005)
    assert value.fano_per_minute > 10  # not Poisson from minute to minute
    assert (value.prompt_mean, value.prompt_p50, value.prompt_p90, value.prompt_max) == (
        pytest.approx(1154.7, abs=0.05), 1020, pytest.approx(2734, abs=1), 14_050,
    )  # fmt: skip
    assert (value.output_mean, value.output_p50, value.output_p90, value.output_p99) == (
        pytest.approx(211.1, abs=0.05), 129, 424, 601,
    )  # fmt: skip
    assert value.length_correlation == pytest.approx(-0.11, abs=0.005)


def test_mooncakes_conversations() -> None:
    w = Workload.from_trace(trace("mooncake_conversation.jsonl"), format="mooncake")
    value = w.describe().value
    assert len(w) == 12_031
    assert value.rate == pytest.approx(3.40, abs=0.005)
    assert (value.prompt_mean, value.prompt_p50) == (pytest.approx(12_035, abs=0.5), 6909)
    assert (value.output_mean, value.output_p50) == (pytest.approx(343, abs=0.5), 350)
    assert value.shared_prompt_share == pytest.approx(0.374, abs=5e-4)
    ids, counts = np.unique(w.content.ids.values, return_counts=True)  # type: ignore[attr-defined]
    assert len(ids) == 182_790
    assert (counts == 1).mean() == pytest.approx(0.758, abs=5e-4)
    assert 1 - len(ids) / counts.sum() == pytest.approx(0.366, abs=5e-4)


def test_a_traces_prompts_share_as_many_tokens_as_its_ids_say() -> None:
    path = trace("mooncake_conversation.jsonl")
    w = Workload.from_trace(path, format="mooncake", num_requests=40).scale(lengths=1 / 64)
    asked = [w.prompt_token_ids(k, 30_000) for k in range(len(w))]
    said = w.content.num_shared_tokens(w.columns, w.seed)
    for k, prompt in enumerate(asked):
        num = int(said[k])
        assert num == 0 or prompt[:num] in {earlier[:num] for earlier in asked[:k]}
