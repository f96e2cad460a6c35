"""The comparison with transformers has teeth: small errors, put in on purpose, are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.models.checkpoints import FAMILIES, write_checkpoint
from tests.system.reference_tokens import Answer, greedy, prompts, reference_model
from toolkit import LLM, SamplingParams
from toolkit.models import FlatBatch

NUM_PROMPTS = 8
NUM_TOKENS = 16
BLOCK_SIZE = 4
NUM_BLOCKS = 64


class Mutated:
    """A decoder that is fed a changed batch."""

    def __init__(self, decoder: Any, change: Callable[[FlatBatch], FlatBatch]) -> None:
        self._decoder = decoder
        self._change = change

    def __call__(self, batch: FlatBatch, kv: Any, **options: Any) -> Any:
        return self._decoder(self._change(batch), kv, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


def drop_entries(llm: LLM) -> None:
    """Lose the keys and values of every eleventh position: they go to a block nobody reads."""
    runner = llm.engine.runner
    runner.storage.num_blocks += 1

    def change(batch: FlatBatch) -> FlatBatch:
        lost = batch.positions % 11 == 3
        # One slot can take one token only, so all but the first keep theirs.
        lost &= lost.cumsum(0) == 1
        return replace(batch, slots=batch.slots.where(~lost, NUM_BLOCKS * BLOCK_SIZE))

    runner.decoder = Mutated(runner.decoder, change)


def shift_positions(llm: LLM) -> None:
    """Let generated tokens stand one position too far.

    Where no positions are computed with (ALiBi sees but the order in the cache), they go one slot
    too far.
    """
    runner, spec = llm.engine.runner, llm.engine.runner.decoder.spec
    has_positions = any(spec.ropes) or spec.num_learned_positions

    def change(batch: FlatBatch) -> FlatBatch:
        is_single = batch.query_starts.diff() == 1
        rows = batch.query_starts[:-1][is_single].long()
        if has_positions:
            positions = batch.positions.clone()
            positions[rows] += 1
            return replace(batch, positions=positions)
        rows = rows[batch.slots[rows] % BLOCK_SIZE < BLOCK_SIZE - 1]
        slots, context_lens = batch.slots.clone(), batch.context_lens.clone()
        slots[rows] += 1
        context_lens[(batch.query_starts[:-1, None] == rows).any(1)] += 1
        return replace(batch, slots=slots, context_lens=context_lens)

    runner.decoder = Mutated(runner.decoder, change)


def widen_windows(llm: LLM) -> None:
    """See one position more through each window; where there is none, see eight positions only."""
    layers = [layer.attention for layer in llm.engine.runner.decoder.layers]
    windowed = [attention for attention in layers if attention.window is not None]
    for attention in windowed or layers:
        attention.window = (attention.window or 7) + 1


MUTATIONS = [drop_entries, shift_positions, widen_windows]


@pytest.fixture(scope="module", params=FAMILIES)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[list[int]], list[Answer]]:
    folder = write_checkpoint(tmp_path_factory.mktemp("model"), FAMILIES[request.param])
    model = reference_model(folder)
    asked = prompts(model.config.vocab_size, NUM_PROMPTS)
    return folder, asked, [greedy(model, prompt, NUM_TOKENS) for prompt in asked]


def num_wrong(case: tuple[Path, list[list[int]], list[Answer]], mutate: Callable) -> int:
    """Count the prompts whose tokens are not transformers'."""
    folder, asked, answers = case
    with LLM(
        str(folder),
        dtype="float32",
        tokenizer=False,
        block_size=BLOCK_SIZE,
        num_kv_blocks=NUM_BLOCKS,
        max_model_len=96,
        max_num_seqs=NUM_PROMPTS,
        max_num_batched_tokens=32,
    ) as llm:
        mutate(llm)
        params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
        outputs = llm.generate(asked, params, progress=False)
    assert all(output.error is None for output in outputs)
    pairs = zip(answers, outputs, strict=True)
    return sum(not a.is_equal_but_for_ties(list(o.outputs[0].token_ids)) for a, o in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_an_error_put_in_on_purpose_is_caught(case: tuple, mutate: Callable):
    assert num_wrong(case, mutate) > 0


@pytest.mark.slow
def test_nothing_is_caught_where_nothing_is_wrong(case: tuple):
    assert num_wrong(case, lambda llm: None) == 0
