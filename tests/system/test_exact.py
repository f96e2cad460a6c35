"""Paged, chunked, preempted, shared: the tokens are still transformers' own, in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tests.models.checkpoints import llama, mpt, qwen3, scaled_llama, write_checkpoint
from toolkit import LLM, SamplingParams
from toolkit.demo import WEIGHTS
from toolkit.engine.events import Preempted, PrefixHit

NUM_PROMPTS = 16
NUM_TOKENS = 48
# Where transformers' own best two logits are closer than this, either token is right.
TIE = 1e-5

CONFIGS = {
    "llama": llama(max_position_embeddings=128),
    "llama3-rope": scaled_llama(
        "llama3",
        factor=4.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
    "qwen3": qwen3(max_position_embeddings=128),
    "mpt": mpt(max_seq_len=128),
    "mpt-6-heads": mpt(max_seq_len=128, n_heads=6),
}
CONFIGS["llama3-rope"].max_position_embeddings = 128


def prompts(vocab_size: int) -> list[list[int]]:
    """Sixteen prompts of unequal length, half of which begin alike."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randint(3, vocab_size, (21,), generator=generator).tolist()
    made = []
    for index in range(NUM_PROMPTS):
        length = 3 + 4 * index % 41
        own = torch.randint(3, vocab_size, (length,), generator=generator).tolist()
        made.append(shared + own if index % 2 else own)
    return made


def transformers_tokens(model: PreTrainedModel, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Greedy tokens of transformers' generate, with the margin of each choice."""
    answer = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = [logits[0].topk(2).values for logits in answer.logits]
    margins = [float(two[0] - two[1]) for two in best]
    return answer.sequences[0, len(prompt) :].tolist(), margins


@pytest.fixture(params=[*CONFIGS, "bundled"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "bundled":
        return WEIGHTS
    config: PreTrainedConfig = CONFIGS[request.param]
    return write_checkpoint(tmp_path / request.param, config)


@pytest.mark.slow
def test_tokens_equal_transformers_under_preemption_chunks_and_sharing(checkpoint: Path) -> None:
    assert_tokens_equal_transformers(checkpoint)


def assert_tokens_equal_transformers(checkpoint: Path) -> None:
    """Generate for sixteen prompts in a pool too small for them, in chunks, and compare."""
    with LLM(
        str(checkpoint),
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
        vocab_size = llm.engine.runner.decoder.spec.vocab_size
        asked = prompts(vocab_size)
        params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
        outputs = llm.generate(asked, params, progress=False)
        llm.engine.scheduler.check()
        widest = llm.engine.record.steps["num_tokens"].max()
    assert preemptions, "the pool was to be so small that preemption happens"
    assert hits, "half the prompts begin alike"
    assert widest <= 32
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    for prompt, output in zip(asked, outputs, strict=True):
        expected, margins = transformers_tokens(model, prompt)
        _assert_same(list(output.outputs[0].token_ids), expected, margins)


def _assert_same(tokens: list[int], expected: list[int], margins: list[float]) -> None:
    assert len(tokens) == len(expected) == NUM_TOKENS
    for index, (ours, theirs) in enumerate(zip(tokens, expected, strict=True)):
        if ours != theirs:
            assert margins[index] < TIE, f"token {index}: {ours}, transformers has {theirs}"
            return  # after a tie the two go their own ways
