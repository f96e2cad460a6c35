"""Paged, chunked, preempted, shared: the tokens are still transformers' own, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.models.checkpoints import CONFIGS, write_checkpoint
from tests.system.reference_tokens import Answer, greedy, prompts, reference_model
from toolkit import LLM, SamplingParams
from toolkit.demo import WEIGHTS
from toolkit.engine.events import Preempted, PrefixHit

NUM_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint, sixteen prompts, and transformers' answers to them."""

    name: str
    folder: Path
    prompts: list[list[int]]
    answers: list[Answer]


@pytest.fixture(params=[*CONFIGS, "bundled"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    name = request.param
    folder = WEIGHTS if name == "bundled" else write_checkpoint(tmp_path, CONFIGS[name])
    model = reference_model(folder)
    asked = prompts(model.config.vocab_size)
    return Case(name, folder, asked, [greedy(model, prompt, NUM_TOKENS) for prompt in asked])


@pytest.mark.slow
def test_tokens_equal_transformers_under_preemption_chunks_and_sharing(
    case: Case, add_row: Callable[..., None]
):
    with LLM(
        str(case.folder),
        dtype="float32",
        tokenizer=False,
        block_size=4,
        # Two or three of the sixteen fit at once.
        num_kv_blocks=64,
        max_model_len=128,
        max_num_seqs=16,
        max_num_batched_tokens=32,
    ) as llm:
        preemptions, hits = [], []
        llm.engine.on(Preempted, preemptions.append)
        llm.engine.on(PrefixHit, hits.append)
        params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
        outputs = llm.generate(case.prompts, params, progress=False)
        llm.engine.scheduler.check()
        widest = llm.engine.record.steps["num_tokens"].max()
    assert preemptions, "the pool was to be so small that preemption happens"
    assert hits, "half the prompts begin alike"
    assert widest <= 32
    ours = [list(output.outputs[0].token_ids) for output in outputs]
    pairs = list(zip(case.answers, ours, strict=True))
    differing = [
        f"prompt {number}, token {index}, margin {answer.margins[index]:.1e}"
        for number, (answer, token_ids) in enumerate(pairs)
        if (index := answer.first_difference(token_ids)) is not None
    ]
    add_row(
        model=case.name,
        prompts=len(ours),
        tokens=sum(map(len, ours)),
        preemptions=len(preemptions),
        hits=len(hits),
        distinct=len({token for token_ids in ours for token in token_ids}),
        differing="; ".join(differing) or "none",
    )
    assert all(answer.is_equal_but_for_ties(token_ids) for answer, token_ids in pairs), differing
