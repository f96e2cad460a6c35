"""The ladder in small, and the benchmark's own workload to the token."""

from __future__ import annotations

import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import offline_throughput_ladder as experiment


def test_the_workload_is_the_benchmarks_own() -> None:
    table = experiment.nano_vllm_workload().table
    assert len(table) == 256
    assert table["num_output_tokens"].sum() == 133_966
    lengths = table[["num_prompt_tokens", "num_output_tokens"]]
    assert lengths.min().min() >= 100
    assert lengths.max().max() <= 1024


def test_a_part_of_it_has_the_same_prompts_only_shorter() -> None:
    full, part = experiment.nano_vllm_workload(), experiment.nano_vllm_workload(3, divisor=8)
    assert len(part) == 3
    for index in range(3):
        prompt = part.prompt_token_ids(index, 20_000)
        assert prompt == full.prompt_token_ids(index, 20_000)[: len(prompt)]
    outputs = full.table["num_output_tokens"].iloc[:3] // 8
    assert part.table["num_output_tokens"].tolist() == outputs.tolist()


@pytest.mark.slow
def test_every_rung_gives_all_its_tokens() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiment._SIZES, "quick", (8, 32, 2))
        result = experiment.run(progress=False)
    ladder = result.data["ladder"].set_index("rung")
    expected = experiment.nano_vllm_workload(8, divisor=32).table["num_output_tokens"]
    assert ladder["num_output_tokens"].tolist() == [expected.iloc[:2].sum(), *[expected.sum()] * 3]
    assert ladder["output_tokens_per_s"].gt(0).all()
    assert ladder["forward_share"].between(0, 1).all()
    assert result.measured == {"nano-vllm-output-tokens": 133_966.0}
    assert set(result.measured) | set(result.reasons) == set(experiment.CLAIMS)
    figure = experiment.plot(result)
    assert list(figure.data["rung"]) == list(ladder.index)
    assert figure.to_png()[:4] == b"\x89PNG"


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="quick"):
        experiment.run("huge")
