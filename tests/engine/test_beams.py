"""The choice of beams, over tables of random scores: equal to transformers' and to exhaustion."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine.beams import BeamSearch, Choice

PROMPT = [1, 2]
VOCAB_SIZE = 8
PADDING = VOCAB_SIZE  # no token of the model


class ScoreTable(PreTrainedModel, GenerationMixin):
    """A model whose logits are random numbers, fixed by the seed and the whole context."""

    config_class = PreTrainedConfig

    def __init__(self, seed: int, vocab_size: int = VOCAB_SIZE) -> None:
        super().__init__(PreTrainedConfig(vocab_size=vocab_size))
        self.seed = seed
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # generate() asks where the model lives

    def logits(self, context: list[int]) -> list[float]:
        draw = random.Random(repr((self.seed, context)))
        return [draw.gauss(0, 1.5) for _ in range(self.config.vocab_size)]

    def logprobs(self, context: list[int]) -> dict[int, float]:
        """Most likely first."""
        logits = self.logits(context)
        total = math.log(sum(map(math.exp, logits)))
        ranked = sorted(range(len(logits)), key=lambda token_id: -logits[token_id])
        return {token_id: logits[token_id] - total for token_id in ranked}

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        rows = [[self.logits(context)] for context in input_ids.tolist()]
        return CausalLMOutput(logits=torch.tensor(rows))


def search(
    table: ScoreTable,
    params: BeamSearchParams,
    *,
    max_tokens: int,
    stop_token_ids: Collection[int] = (),
    num_candidates: int | None = None,
) -> BeamSearch:
    """Run a search to its end; each beam proposes no more than it is asked for."""
    done = BeamSearch(params, max_tokens=max_tokens, stop_token_ids=stop_token_ids)
    while not done.is_done:
        rows = [table.logprobs([*PROMPT, *beam.token_ids]) for beam in done.beams]
        count = done.num_candidates if num_candidates is None else num_candidates
        done.advance([dict(list(row.items())[:count]) for row in rows])
    return done


searches = st.fixed_dictionaries(
    {
        "beam_width": st.integers(2, 5),
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.8, 1.0, 1.2, 3.0]),
        "early_stopping": st.sampled_from([False, True, "never"]),
    }
).map(lambda fields: BeamSearchParams(**fields))
lengths = st.integers(1, 8)
stops = st.sets(st.integers(0, VOCAB_SIZE - 1), max_size=2).map(sorted)
seeds = st.integers(0, 10**6)


@settings(max_examples=80)
@given(seeds, searches, lengths, stops)
def test_sequences_and_scores_are_those_of_transformers(
    seed: int, params: BeamSearchParams, max_tokens: int, stop_ids: list[int]
):
    table = ScoreTable(seed)
    theirs = table.generate(
        torch.tensor([PROMPT]),
        num_beams=params.beam_width,
        num_return_sequences=params.beam_width,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
        max_new_tokens=max_tokens,
        eos_token_id=stop_ids or None,
        pad_token_id=PADDING,
        do_sample=False,
        use_cache=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    ours = search(table, params, max_tokens=max_tokens, stop_token_ids=stop_ids).hypotheses
    assert [one.score for one in ours] == pytest.approx(theirs.sequences_scores.tolist(), rel=1e-4)
    for hypothesis, sequence in zip(ours, theirs.sequences.tolist(), strict=True):
        tokens, padding = _split(sequence[len(PROMPT) :], len(hypothesis.token_ids))
        assert list(hypothesis.token_ids) == tokens
        assert set(padding) <= {PADDING}
        assert hypothesis.is_stopped == (tokens[-1] in stop_ids)


def _split(tokens: list[int], at: int) -> tuple[list[int], list[int]]:
    return tokens[:at], tokens[at:]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("vocab_size", "max_tokens"), [(2, 4), (2, 3), (3, 2), (4, 2)])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_search_as_wide_as_the_tree_finds_the_best_sequences_there_are(
    seed: int, vocab_size: int, max_tokens: int, length_penalty: float
):
    table, stop = ScoreTable(seed, vocab_size), 0
    params = BeamSearchParams(beam_width=16, length_penalty=length_penalty)
    scores: dict[tuple[int, ...], float] = {}
    for leaf in product(range(vocab_size), repeat=max_tokens):
        end = leaf.index(stop) + 1 if stop in leaf else max_tokens
        sequence = leaf[:end]
        steps = [table.logprobs([*PROMPT, *sequence[:i]])[sequence[i]] for i in range(end)]
        scores[sequence] = sum(steps) / end**length_penalty
    best = sorted(scores, key=lambda sequence: -scores[sequence])
    done = search(table, params, max_tokens=max_tokens, stop_token_ids={stop})
    assert [hypothesis.token_ids for hypothesis in done.hypotheses] == best[:16]


@settings(max_examples=60)
@given(seeds, searches, lengths, stops)
def test_no_more_candidates_are_needed_than_are_asked_for(
    seed: int, params: BeamSearchParams, max_tokens: int, stop_ids: list[int]
):
    limits: dict[str, Any] = {"max_tokens": max_tokens, "stop_token_ids": stop_ids}
    few = search(ScoreTable(seed), params, **limits)
    all_of_them = search(ScoreTable(seed), params, **limits, num_candidates=VOCAB_SIZE)
    assert few.hypotheses == all_of_them.hypotheses


@pytest.mark.parametrize("length_penalty", [0.5, 0.8, 1.0])
def test_the_later_a_search_may_stop_the_longer_it_goes_on(length_penalty: float):
    """The three ways to stop differ, and only ever in this direction."""
    num_lengths = {
        early: [
            len(
                search(
                    ScoreTable(seed),
                    BeamSearchParams(early_stopping=early, length_penalty=length_penalty),
                    max_tokens=12,
                    stop_token_ids={0, 1},
                )
                .beams[0]
                .token_ids
            )
            for seed in range(40)
        ]
        for early in (True, False, "never")
    }
    for soon, later in (True, False), (False, "never"):
        pairs = list(zip(num_lengths[soon], num_lengths[later], strict=True))
        assert all(a <= b for a, b in pairs)
        assert any(a < b for a, b in pairs)


def test_of_equal_sums_the_better_beam_goes_first():
    tie = BeamSearch(BeamSearchParams(beam_width=2), max_tokens=5, stop_token_ids=())
    assert tie.advance([{5: -1.0, 3: -1.0, 4: -1.0}]) == (Choice(0, 5, -1.0), Choice(0, 3, -1.0))
    assert tie.advance([{1: -2.0, 2: -2.0}, {1: -2.0, 2: -2.0}]) == (
        Choice(0, 1, -3.0),
        Choice(0, 2, -3.0),
    )


def test_a_stopping_token_outside_the_best_is_no_hypothesis():
    """Only the ``beam_width`` best continuations may end, as in transformers."""
    search = BeamSearch(BeamSearchParams(beam_width=2), max_tokens=5, stop_token_ids={0})
    search.advance([{1: -1.0, 2: -1.5, 0: -2.0}])
    assert search.hypotheses == []
    search.advance([{0: -0.1, 1: -1.0, 2: -1.0}, {1: -1.0, 2: -1.0, 0: -5.0}])
    assert [hypothesis.token_ids for hypothesis in search.hypotheses] == [(1, 0)]
