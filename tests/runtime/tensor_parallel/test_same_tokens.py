"""Two processes say what one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.checkpoints import CONFIGS, PROMPTS, write_checkpoint
from tests.runtime.tensor_parallel.processes import load
from toolkit import LLM, PoolingParams, SamplingParams, Steer
from toolkit.errors import InvalidRequest

# One for each way in which a part is made: grouped heads, experts, sinks, norms over all heads and
# over each, two branches in parallel, slopes by head, projected embeddings, matrices by group.
DISTINCT = (
    "mixtral",
    "gpt_oss",
    "olmo2",
    "cohere",
    "opt, norms of sums and projected embeddings",
    "falcon",
    "mpt",
)


def generated(llm: LLM, **params: Any) -> list[list[list[int]]]:
    outputs = llm.generate(
        PROMPTS, SamplingParams(max_tokens=12, ignore_eos=True, **params), progress=False
    )
    assert [output.error for output in outputs] == [None] * len(PROMPTS)
    return [[list(sample.token_ids) for sample in output.outputs] for output in outputs]


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 7},
        {"temperature": 1.0, "seed": 7, "n": 3},  # whose samples copy blocks
        {"temperature": 1.0, "seed": 7, "logprobs": 3, "prompt_logprobs": 2},
    ],
    ids=str,
)
def test_the_tokens_are_those_of_one_process(one: LLM, two: LLM, params: dict[str, Any]):
    assert generated(two, **params) == generated(one, **params)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
def test_the_tokens_of_other_families_are_the_same(name: str, tmp_path: Path):
    folder = write_checkpoint(tmp_path, CONFIGS[name])
    expected = []
    for size in (1, 2):
        with load(folder, tensor_parallel=size) as llm:
            expected.append([generated(llm, temperature=t, seed=3) for t in (0.0, 1.0)])
    assert expected[0] == expected[1]


def test_each_process_has_half_of_what_one_would_have(one: LLM, two: LLM):
    whole, half = one.memory_plan(), two.memory_plan()
    assert half.num_blocks == whole.num_blocks
    assert half.kv_bytes == whole.kv_bytes / 2
    assert half.weight_bytes == pytest.approx(whole.weight_bytes / 2, rel=0.05)
    assert two.holding().kv_bytes == one.holding().kv_bytes


def test_requests_that_push_one_another_out_of_the_cache_are_computed_again(one: LLM, two: LLM):
    before = two.engine.record.steps["num_preempted"].sum()
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    prompts = [[5 + i] * 9 for i in range(8)]
    found = [two.generate(prompts, params, progress=False) for _ in range(2)]
    assert two.engine.record.steps["num_preempted"].sum() > before
    for outputs in found:
        expected = one.generate(prompts, params, progress=False)
        assert [o.outputs[0].token_ids for o in outputs] == [
            o.outputs[0].token_ids for o in expected
        ]


def test_log_probabilities_of_prompts_and_embeddings_are_close(one: LLM, two: LLM):
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
    prompt = PROMPTS[2]
    scores = []
    for llm in (one, two):
        (output,) = llm.generate(prompt, params)
        known = zip(prompt[1:], output.prompt_logprobs[1:], strict=True)
        scores.append([at[token_id].logprob for token_id, at in known])
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
    vectors = [
        llm.embed(PROMPTS, PoolingParams(pooling="mean"), progress=False) for llm in (one, two)
    ]
    for own, expected in zip(vectors[1], vectors[0], strict=True):
        np.testing.assert_allclose(own.outputs.embedding, expected.outputs.embedding, atol=1e-5)


def test_a_beam_search_finds_the_same(one: LLM, two: LLM):
    found = []
    for llm in (one, two):
        (output,) = llm.beam_search(PROMPTS[0], 3, max_tokens=8, ignore_eos=True)
        found.append([sample.token_ids for sample in output.outputs])
    assert found[0] == found[1]


def test_an_explanation_is_computed_in_all_processes(one: LLM, two: LLM):
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=4, ignore_eos=True)
    told = []
    for llm in (one, two):
        (output,) = llm.generate(PROMPTS[0], params)
        told.append(llm.explain(output, token=2))
    assert told[1].source == "recomputed"
    assert told[1].reproduced
    assert told[1].token_id == told[0].token_id
    assert told[1].logit_raw == pytest.approx(told[0].logit_raw, abs=1e-4)


def test_an_engine_of_the_past_goes_on_beside_the_present_one(two: LLM):
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    (output,) = two.generate(PROMPTS[0], params)
    last = int(two.engine.record.steps["step"].iloc[-1])
    past = two.engine.record.engine_at(last - 2)
    try:
        past.run_until_idle()
        tokens = past.record.tokens
        own = tokens[tokens["request_id"] == output.request_id].sort_values("index")
        assert own["token_id"].tolist() == list(output.outputs[0].token_ids)
    finally:
        past.close()
    assert two.generate(PROMPTS[0], params)[0].outputs[0].token_ids == output.outputs[0].token_ids


def test_whole_activations_are_captured_and_changed_everywhere(one: LLM, two: LLM):
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    vector = torch.linspace(-2, 2, 48)
    states, steered = [], []
    for llm in (one, two):
        with llm.hooks.capture(["layers.*.resid_post", "layers.0.mlp_out", "logits"]) as captured:
            (output,) = llm.generate(
                PROMPTS[2], params, hooks=[Steer(vector, layer=0, positions="all")]
            )
        steered.append(output.outputs[0].token_ids)
        states.append(captured[output.request_id])
    assert steered[0] == steered[1]
    assert steered[0] != one.generate(PROMPTS[2], params)[0].outputs[0].token_ids
    for point in states[0]:
        torch.testing.assert_close(
            states[1][point].tensor, states[0][point].tensor, atol=1e-4, rtol=0
        )


def test_hooks_on_activations_that_are_in_parts_are_refused(two: LLM):
    assert "layers.0.q" not in two.hooks.points
    assert "layers.0.resid_pre" in two.hooks.points
    with pytest.raises(InvalidRequest, match=r"head_out, q: .*tensor_parallel=2"):
        two.hooks.capture(["layers.0.q", "layers.1.head_out"])
    with pytest.raises(InvalidRequest, match=r"mlp_act: .*tensor_parallel=1"):
        two.generate(PROMPTS[0], hooks=[Steer(torch.zeros(56), point="layers.0.mlp_act")])
