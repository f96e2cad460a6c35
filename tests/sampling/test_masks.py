"""Tokens that may not be chosen: allowed ones, bad words, and what happens when none is left."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from tests.sampling.rows import make_request, normal, sample, seen_at
from toolkit.errors import InvalidParameter, InvalidRequest
from toolkit.sampling import check_token_ids

VOCAB = 30


def forbidden(logits: Tensor, **params: Any) -> set[int]:
    """What the masks make impossible; everything else is to be as it was."""
    seen = seen_at("default", logits, **params)
    gone = seen == -torch.inf
    assert torch.equal(seen[~gone], logits[~gone])
    return set(gone.nonzero().squeeze(1).tolist())


def test_only_allowed_tokens_are_possible():
    logits = normal(1, VOCAB, seed=0)[0]
    assert forbidden(logits, allowed_token_ids=[3, 9, 9]) == set(range(VOCAB)) - {3, 9}
    assert forbidden(logits, allowed_token_ids=range(VOCAB)) == set()


def test_what_is_not_allowed_is_what_transformers_suppresses():
    logits = normal(1, VOCAB, seed=1)
    suppressed = [token_id for token_id in range(VOCAB) if token_id % 3]
    allowed = [token_id for token_id in range(VOCAB) if token_id % 3 == 0]
    theirs = SuppressTokensLogitsProcessor(suppressed, device="cpu")(
        torch.zeros(1, 1, dtype=torch.int64), logits.clone()
    )
    assert torch.equal(seen_at("default", logits[0], allowed_token_ids=allowed), theirs[0])


def test_stops_held_back_are_those_of_transformers():
    logits = normal(1, VOCAB, seed=2)
    for num_output in range(4):
        tokens = torch.zeros(1, 2 + num_output, dtype=torch.int64)
        theirs = MinNewTokensLengthLogitsProcessor(2, 3, [4, 8], device="cpu")(
            tokens, logits.clone()
        )
        ours = seen_at(
            "default", logits[0], prompt=[0, 0], output=[0] * num_output, eos=[4, 8], min_tokens=3
        )
        assert torch.equal(ours, theirs[0])


@pytest.mark.parametrize("seed", range(8))
def test_bad_words_are_those_of_transformers_when_all_is_output(seed: int):
    """Theirs looks at prompt and output alike, ours at the output; so the prompt is a stranger."""
    rng = random.Random(seed)
    words = [rng.choices(range(6), k=rng.choice([1, 2, 2, 3, 4])) for _ in range(12)]
    words = [word for word in words if len(word) > 1] + [[rng.randrange(6)]]
    for length in range(8):
        output = rng.choices(range(6), k=length)
        logits = normal(1, VOCAB, seed=seed)
        theirs = NoBadWordsLogitsProcessor(words, eos_token_id=VOCAB - 1)(
            torch.tensor([[VOCAB - 2, *output]]), logits.clone()
        )
        ours = seen_at("default", logits[0], prompt=[VOCAB - 2], output=output, bad_words=words)
        assert torch.equal(ours, theirs[0]), (words, output)


@pytest.mark.parametrize(
    ("output", "banned"),
    [
        ([], {1}),
        ([2], {1, 3}),
        ([2, 3], {1, 4, 5}),
        ([3, 2], {1, 3}),
        ([2, 3, 4], {1}),
        ([9, 2, 3], {1, 4, 5}),
    ],
)
def test_a_bad_word_loses_its_last_token_where_the_output_ends_with_the_others(
    output: list[int], banned: set[int]
):
    logits = normal(1, VOCAB, seed=3)[0]
    words = [[1], [2, 3], [2, 3, 4], [3, 5]]
    assert forbidden(logits, output=output, bad_words=words) == banned


def test_a_bad_word_that_begins_in_the_prompt_is_not_one():
    logits = normal(1, VOCAB, seed=3)[0]
    words = [[2, 3], [1, 2, 3]]
    assert forbidden(logits, prompt=[1, 2], bad_words=words) == set()
    assert forbidden(logits, prompt=[1], output=[2], bad_words=words) == {3}


def test_masks_of_several_rows_do_not_mix():
    logits = torch.zeros(5, VOCAB)
    logits[:, 7] = 1.0
    requests = [
        make_request(temperature=0.0),
        make_request(temperature=0.0, allowed_token_ids=[4, 5]),
        make_request(temperature=0.0, bad_words=[[7]]),
        make_request(temperature=0.0, bad_words=[[1, 7]], output=[1]),
        make_request(temperature=0.0, bad_words=[[1, 7]], output=[2]),
    ]
    assert sample(logits, requests).token_ids == [7, 4, 0, 0, 7]


def test_a_bias_cannot_bring_back_what_is_forbidden():
    logits = normal(1, VOCAB, seed=4)
    request = make_request(temperature=0.0, bad_words=[[7]], logit_bias={7: 100})
    assert sample(logits, [request]).token_ids != [7]


# ---- nothing left


def emptied(**params: Any) -> Any:
    return make_request(output=[2], bad_words=[[2, 5]], allowed_token_ids=[5], **params)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_whose_masks_leave_nothing_fails_alone(temperature: float):
    logits = normal(5, VOCAB, seed=5)
    plain = [make_request(seed=row, temperature=float(row % 2)) for row in range(5)]
    expected = sample(logits, plain).token_ids
    requests = [*plain[:2], emptied(temperature=temperature, logprobs=2), *plain[3:]]
    output = sample(logits, requests)
    assert set(output.errors) == {2}
    assert isinstance(output.errors[2], InvalidRequest)
    assert "no token is left" in str(output.errors[2])
    assert [output.token_ids[row] for row in (0, 1, 3, 4)] == [expected[r] for r in (0, 1, 3, 4)]


def test_the_processor_of_a_row_with_nothing_left_is_not_blamed():
    asked = []
    request = emptied(logits_processors=[lambda logits, at: asked.append(at)])
    output = sample(normal(1, VOCAB, seed=6), [request])
    assert "bad_words" in str(output.errors[0])
    assert asked == []


def test_a_processor_that_leaves_only_bad_words_fails_its_row():
    def only_five(logits: Tensor, at: Any) -> Tensor:
        return torch.where(torch.arange(VOCAB) == 5, logits, -torch.inf)

    only_five.stage = "raw"
    request = make_request(bad_words=[[5]], logits_processors=[only_five])
    output = sample(normal(1, VOCAB, seed=7), [request])
    assert "no token is left" in str(output.errors[0])


REFUSED: list[dict[str, Any]] = [
    {"allowed_token_ids": [1, 2], "bad_words": [[1], [2]]},
    {"allowed_token_ids": [4], "eos": [4], "min_tokens": 1},
    {"allowed_token_ids": [4, 5], "stop_token_ids": [4], "bad_words": [[5]], "min_tokens": 3},
    {"bad_words": [[token_id] for token_id in range(VOCAB)]},
    {"bad_words": [[t] for t in range(1, VOCAB)], "stop_token_ids": [0], "min_tokens": 1},
]


@pytest.mark.parametrize("params", REFUSED, ids=str)
def test_masks_that_never_leave_a_token_are_refused_beforehand(params: dict[str, Any]):
    with pytest.raises(InvalidParameter, match="no token is left") as caught:
        check_token_ids(make_request(**params), VOCAB)
    assert caught.value.param in ("allowed_token_ids", "bad_words")


@pytest.mark.parametrize(
    "params",
    [
        {"allowed_token_ids": [1, 2], "bad_words": [[1], [2, 2]]},
        {"allowed_token_ids": [4], "eos": [4]},
        {"allowed_token_ids": [4], "eos": [4], "min_tokens": 1, "ignore_eos": True},
        {"bad_words": [[token_id] for token_id in range(1, VOCAB)]},
    ],
    ids=str,
)
def test_masks_that_leave_a_token_are_taken(params: dict[str, Any]):
    check_token_ids(make_request(**params), VOCAB)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_token_ids", [0, VOCAB]),
        ("bad_words", [[1], [2, VOCAB]]),
        ("stop_token_ids", [VOCAB]),
        ("logit_bias", {VOCAB: 1.0}),
    ],
)
def test_a_token_outside_the_vocabulary_is_refused_by_name(name: str, value: Sequence[Any]):
    with pytest.raises(InvalidParameter, match=str(VOCAB)) as caught:
        check_token_ids(make_request(**{name: value}), VOCAB)
    assert caught.value.param == name
