"""Beam search, forked, copied and preempted: the tokens are still transformers' own, in float32.

``assert_equals_transformers`` takes any checkpoint folder, so that every family can be held to it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tests.models.checkpoints import llama, mpt, qwen3, write_checkpoint
from toolkit import LLM
from toolkit.demo import WEIGHTS
from toolkit.engine.events import BlockCopied, StepFinished
from toolkit.errors import InvalidParameter
from toolkit.request import RequestOutput

BEAM_WIDTH = 4
NUM_PROMPTS = 8
NUM_TOKENS = 24
BLOCK_SIZE = 4
MAX_MODEL_LEN = 64  # the longest prompt and NUM_TOKENS more
# Room for one sequence and a half: eight searches of four beams fight for it.
SMALL_POOL = 24
LARGE_POOL = NUM_PROMPTS * BEAM_WIDTH * MAX_MODEL_LEN // BLOCK_SIZE
CONFIGS = {
    "llama": llama(max_position_embeddings=MAX_MODEL_LEN),
    "qwen3": qwen3(max_position_embeddings=MAX_MODEL_LEN),
    "mpt": mpt(max_seq_len=MAX_MODEL_LEN),
}
LENGTH_PENALTIES = (0.8, 1.0, 1.2)
EARLY_STOPPING = (False, True, "never")


@dataclass(frozen=True)
class Found:
    """One sequence of transformers'."""

    token_ids: list[int]
    score: float


def prompts(vocab_size: int) -> list[list[int]]:
    """Eight prompts of unequal length, half of which begin alike."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randint(3, vocab_size, (9,), generator=generator).tolist()
    made = []
    for index in range(NUM_PROMPTS):
        length = 2 + 5 * index % 27
        own = torch.randint(3, vocab_size, (length,), generator=generator).tolist()
        made.append(shared + own if index % 2 else own)
    return made


def transformers_beams(
    model: PreTrainedModel, prompt: list[int], *, stop_token_ids: Sequence[int], **search: Any
) -> list[Found]:
    """Run transformers' beam search on one prompt; sequences without their padding."""
    answer = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=BEAM_WIDTH,
        num_return_sequences=BEAM_WIDTH,
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=list(stop_token_ids) or None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
        **search,
    )
    found = []
    for sequence, score in zip(answer.sequences, answer.sequences_scores, strict=True):
        tokens = sequence[len(prompt) :].tolist()
        ends = (index + 1 for index, token in enumerate(tokens) if token in stop_token_ids)
        found.append(Found(tokens[: next(ends, NUM_TOKENS)], float(score)))
    return found


@dataclass
class Report:
    """What happened in one pool, over all searches."""

    lengths: Counter[int] = field(default_factory=Counter)  # of sequences
    saved: list[float] = field(default_factory=list)  # fraction of blocks, by search
    num_preemptions: int = 0
    num_copies: int = 0


def assert_equals_transformers(
    checkpoint: Path,
    *,
    stops: bool,
    pools: Sequence[int] = (LARGE_POOL, SMALL_POOL),
    **options: Any,
) -> dict[int, Report]:
    """Search under every length penalty and way to stop, in each pool and with transformers.

    Args:
        checkpoint: Any folder that both can load.
        stops: Whether two tokens that the model likes end a sequence; else none does.
        pools: Sizes of the KV cache, in blocks.
        options: Further ones of ``LLM``.
    """
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    asked = prompts(model.config.vocab_size)
    stop_ids = _stopping_tokens(model, asked) if stops else []
    expected = {
        choice: [
            transformers_beams(
                model,
                prompt,
                stop_token_ids=stop_ids,
                length_penalty=choice[0],
                early_stopping=choice[1],
            )
            for prompt in asked
        ]
        for choice in product(LENGTH_PENALTIES, EARLY_STOPPING)
    }
    return {
        num_blocks: _assert_same_in_pool(
            checkpoint, num_blocks, asked, stop_ids, expected, **options
        )
        for num_blocks in pools
    }


def _assert_same_in_pool(
    checkpoint: Path,
    num_kv_blocks: int,
    asked: list[list[int]],
    stop_ids: list[int],
    expected: dict[tuple[float, Any], list[list[Found]]],
    **options: Any,
) -> Report:
    report = Report()
    with LLM(
        str(checkpoint),
        dtype="float32",
        tokenizer=False,
        block_size=BLOCK_SIZE,
        num_kv_blocks=num_kv_blocks,
        max_model_len=MAX_MODEL_LEN,
        **options,
    ) as llm:
        copies: list[BlockCopied] = []
        llm.engine.on(BlockCopied, copies.append)
        for (length_penalty, early_stopping), answers in expected.items():
            outputs = llm.beam_search(
                asked,
                BEAM_WIDTH,
                max_tokens=NUM_TOKENS,
                length_penalty=length_penalty,
                early_stopping=early_stopping,
                stop_token_ids=stop_ids,
                ignore_eos=True,  # the stops are all that ends a sequence here
                progress=False,
            )
            llm.engine.scheduler.check()
            assert llm.engine.cache.pool.num_used == 0
            for output, found in zip(outputs, answers, strict=True):
                _assert_same(output, found)
                report.lengths.update(len(sample.token_ids) for sample in output.outputs)
                assert output.block_sharing is not None
                report.saved.append(output.block_sharing.saved)
        report.num_preemptions = int(llm.engine.record.steps["num_preempted"].sum())
        report.num_copies = len(copies)
    return report


def _assert_same(output: RequestOutput, expected: list[Found]) -> None:
    for ours, theirs in zip(output.outputs, expected, strict=True):
        assert list(ours.token_ids) == theirs.token_ids
        assert ours.beam_score == pytest.approx(theirs.score, abs=1e-4)


def _stopping_tokens(model: PreTrainedModel, asked: list[list[int]]) -> list[int]:
    """Choose the two tokens that most of the best beams meet in the middle."""
    met: Counter[int] = Counter()
    for prompt in asked:
        best = transformers_beams(model, prompt, stop_token_ids=[])[0]
        met.update(set(best.token_ids[4:16]))
    return sorted(token_id for token_id, _ in met.most_common(2))


@pytest.fixture(params=[*CONFIGS, "bundled"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "bundled":
        return WEIGHTS
    config: PreTrainedConfig = CONFIGS[request.param]
    return write_checkpoint(tmp_path / request.param, config)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True])
def test_beams_equal_transformers(checkpoint: Path, stops: bool) -> None:
    reports = assert_equals_transformers(checkpoint, stops=stops)
    roomy, crowded = reports[LARGE_POOL], reports[SMALL_POOL]
    assert roomy.num_preemptions == 0
    assert crowded.num_preemptions > 0, "the pool was to be so small that preemption happens"
    for report in reports.values():
        assert report.num_copies > 0
        if stops:
            assert len(report.lengths) > 3, "sequences were to end at different lengths"
        else:
            assert set(report.lengths) == {NUM_TOKENS}
    assert fmean(roomy.saved) > 0.2


@pytest.mark.slow
def test_the_bundled_model_ends_at_its_own_end_of_sequence_and_makes_text() -> None:
    prompt = "Copy: red blue green. Answer:"
    with LLM(dtype="float32") as llm:
        (output,) = llm.beam_search(prompt, max_tokens=NUM_TOKENS)
        eos_token_ids = sorted(llm.tokenizer.eos_token_ids)
        model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
        expected = transformers_beams(
            model, list(output.prompt_token_ids), stop_token_ids=eos_token_ids
        )
        _assert_same(output, expected)
        stopped = [sample for sample in output.outputs if sample.finish_reason == "stop"]
        assert stopped, "this prompt was to have an answer that ends"
        for sample in stopped:
            assert sample.token_ids[-1] in eos_token_ids
            assert sample.stop_reason is None
            assert sample.text == llm.tokenizer.decode(sample.token_ids[:-1])
        (without,) = llm.beam_search(prompt, max_tokens=NUM_TOKENS, ignore_eos=True)
        assert {len(sample.token_ids) for sample in without.outputs} == {NUM_TOKENS}


def test_prompts_are_answered_in_their_order_whatever_form_they_have() -> None:
    with LLM(dtype="float32") as llm:
        text = "Copy: red blue. Answer:"
        token_ids = llm.tokenizer.encode(text)
        (alone,) = llm.beam_search(text, 2, max_tokens=4)
        both = llm.beam_search([token_ids, "Hello"], 2, max_tokens=4, tags={"who": "me"})
        assert [output.prompt for output in both] == [None, "Hello"]
        assert [s.text for s in both[0].outputs] == [s.text for s in alone.outputs]
        assert [len(output.outputs) for output in both] == [2, 2]
        assert llm.engine.record.requests["tags.who"].tolist()[2:] == ["me"] * 4
        assert llm.engine.cache.pool.num_used == 0


def test_an_interrupted_search_is_aborted_and_can_be_run_again() -> None:
    with LLM(dtype="float32") as llm:
        (before,) = llm.beam_search("Hello", 2, max_tokens=4)
        slow = llm.engine.on(StepFinished, lambda event: time.sleep(0.01))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            llm.beam_search(["Hello"] * 4, max_tokens=100, ignore_eos=True, progress=False)
        slow()
        assert not llm.engine.scheduler.has_work
        assert llm.engine.cache.pool.num_used == 0
        llm.engine.scheduler.check()
        (after,) = llm.beam_search("Hello", 2, max_tokens=4)
        assert [s.text for s in after.outputs] == [s.text for s in before.outputs]


def test_a_search_wider_than_the_vocabulary_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, llama(vocab_size=12))
    with LLM(str(checkpoint), tokenizer=False, max_model_len=32) as llm:
        with pytest.raises(InvalidParameter, match="vocabulary has 12 tokens"):
            llm.beam_search([1, 2], 13)
        (output,) = llm.beam_search([1, 2], 12, max_tokens=3)
        assert len(output.outputs) == 12
