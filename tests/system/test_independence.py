"""With a seed, what a request samples does not depend on what runs beside it, nor on how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.models.checkpoints import FAMILIES, write_checkpoint
from tests.system.reference_tokens import prompts
from toolkit import LLM, SamplingParams
from toolkit.engine.events import Preempted

NUM_REQUESTS = 32
NUM_TOKENS = 20
ROOMY: dict[str, Any] = {"num_kv_blocks": 1024, "max_num_batched_tokens": 512}


def sampling(index: int) -> SamplingParams:
    """Parameters that use every step of the chain, each request others."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.3, "top_k": 20, "repetition_penalty": 1.2},
        {"temperature": 0.9, "min_p": 0.05, "presence_penalty": 0.5, "frequency_penalty": 0.3},
        {"temperature": 1.1, "typical_p": 0.9, "logit_bias": {7: 1.5}},
    ]
    return SamplingParams(
        seed=index, max_tokens=NUM_TOKENS, ignore_eos=True, **kinds[index % len(kinds)]
    )


def run(folder: Path, requests: Sequence[int], **settings: Any) -> dict[int, list[int]]:
    """Generate for some of the requests, in this order; return their tokens."""
    asked = prompts(97, NUM_REQUESTS)
    with LLM(
        str(folder),
        dtype="float32",
        tokenizer=False,
        block_size=4,
        max_model_len=96,
        max_num_seqs=NUM_REQUESTS,
        **(ROOMY | settings),
    ) as llm:
        preempted: list[Preempted] = []
        llm.engine.on(Preempted, preempted.append)
        outputs = llm.generate(
            [asked[index] for index in requests],
            [sampling(index) for index in requests],
            progress=False,
        )
        if "num_kv_blocks" in settings:
            assert preempted, "the pool was to be so small that preemption happens"
    tokens = [list(output.outputs[0].token_ids) for output in outputs]
    return dict(zip(requests, tokens, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_tokens_are_a_requests_own(family: str, tmp_path: Path):
    folder = write_checkpoint(tmp_path, FAMILIES[family])
    everybody = range(NUM_REQUESTS)
    together = run(folder, everybody)
    assert len({tuple(tokens) for tokens in together.values()}) > NUM_REQUESTS // 2
    for index in range(5):
        assert run(folder, [index])[index] == together[index], "alone"
    assert run(folder, everybody[::-1]) == together, "in reversed order"
    assert run(folder, everybody, max_num_batched_tokens=13) == together, "in other chunks"
    assert run(folder, everybody, num_kv_blocks=64) == together, "preempted"
