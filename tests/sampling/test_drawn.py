"""Tokens that stay on the device are the sampler's own, and nobody waits for them unasked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.sampling.rows import CPU, make_request, normal
from toolkit.kernels import select_ops
from toolkit.sampling import RowState, Sampler

VOCAB_SIZE = 300
BLIND: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.0, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 1.3, "typical_p": 0.9},
    {"temperature": 0.0, "logit_bias": {3: 4.0}},
    {"temperature": 1.0, "allowed_token_ids": [3, 4, 5]},
    {"temperature": 1.0, "bad_words": [[7], [8]]},
    {"temperature": 1.0, "min_tokens": 4, "max_tokens": 9, "stop_token_ids": [1, 2, 3]},
)


def rows_of(kinds: Any, **fixed: Any) -> list[RowState]:
    requests = [make_request(seed=index, **kind, **fixed) for index, kind in enumerate(kinds)]
    return [
        RowState(request, request.num_tokens + index % 3) for index, request in enumerate(requests)
    ]


@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_what_is_drawn_is_what_would_be_sampled(kernels: str):
    ops = select_ops(kernels, CPU)
    rows = rows_of(BLIND * 2)
    for turn in range(3):
        logits = normal(len(rows), VOCAB_SIZE, seed=turn, scale=3.0)
        expected = Sampler(VOCAB_SIZE, CPU, ops=ops).sample(logits.clone(), rows)
        sampler = Sampler(VOCAB_SIZE, CPU, ops=ops)
        assert all(row.request.samples_blind for row in rows)
        token_ids, errors = sampler.draw(logits.clone(), rows).finish()
        assert (token_ids, errors) == (expected.token_ids, {})


@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_a_row_without_a_token_fails_alone_and_as_it_does_when_sampled(kernels: str):
    ops = select_ops(kernels, CPU)
    kinds = [*BLIND, {"temperature": 1.0, "allowed_token_ids": [3], "bad_words": [[3]]}]
    rows = rows_of(kinds)
    logits = normal(len(rows), VOCAB_SIZE, seed=1)
    for row, value in ((1, float("nan")), (6, float("inf")), (0, float("-inf"))):
        logits[row, 9 if row else slice(None)] = value
    expected = Sampler(VOCAB_SIZE, CPU, ops=ops).sample(logits.clone(), rows)
    token_ids, errors = Sampler(VOCAB_SIZE, CPU, ops=ops).draw(logits.clone(), rows).finish()
    assert {row: str(error) for row, error in errors.items()} == {
        row: str(error) for row, error in expected.errors.items()
    }
    assert set(errors) == {0, 1, 6, len(rows) - 1}
    sound = [row for row in range(len(rows)) if row not in errors]
    assert [token_ids[row] for row in sound] == [expected.token_ids[row] for row in sound]


@pytest.mark.parametrize(
    "kind",
    [
        {"logprobs": 1},
        {"prompt_logprobs": 0},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.5},
        {"bad_words": [[1, 2]]},
        {"logits_processors": [lambda logits, at: None]},
        {"structured_outputs": {"choice": ["a"]}},
    ],
)
def test_a_request_whose_tokens_are_looked_at_does_not_sample_blind(kind: dict[str, Any]):
    assert make_request().samples_blind
    assert not make_request(**kind).samples_blind


def test_explanations_are_on_where_one_of_the_requests_is_chosen():
    sampler = Sampler(VOCAB_SIZE, CPU)
    plain, watched = make_request(), make_request(tags={"watched": True})
    sampler.explain_if(lambda request: "watched" in request.tags)
    assert not sampler.explained.is_on([plain])
    assert sampler.explained.is_on([plain, watched])
    assert Sampler(VOCAB_SIZE, CPU, explains_all=lambda: True).explained.is_on([plain])
    sampler.explain_if(None)
    assert not sampler.explained.is_on([plain, watched])


def test_drawing_needs_no_value_of_any_tensor():
    """On the meta device a tensor has no values, so whoever asks for one raises."""
    meta = torch.device("meta")
    # The reference's cut-offs do ask; Triton's do not, and tests/kernels captures them on a GPU.
    ops = replace(select_ops("reference", meta), cut_unlikely=lambda logits, **_: logits)
    sampler = Sampler(VOCAB_SIZE, meta, ops=ops)
    rows = rows_of(BLIND)
    drawn = sampler.draw(torch.zeros(len(rows), VOCAB_SIZE, device=meta), rows)
    assert drawn.tokens.shape == (len(rows),)
    with pytest.raises((NotImplementedError, RuntimeError)):
        drawn.finish()
