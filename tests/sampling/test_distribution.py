"""Twenty thousand draws from known logits have the exact distribution, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.sampling.exact import exact_probabilities, p_value
from tests.sampling.rows import CPU, make_request
from toolkit.kernels import select_ops
from toolkit.kernels.reference_sampling import race
from toolkit.sampling import RowState, Sampler

NUM_DRAWS = 20_000
# Of a right sampler one case in a thousand would fall below; these draws never change.
LEAST_P = 0.001
# Twelve tokens, half of them with negative logits. So wide a spread that a temperature five percent
# off moves the statistic by about 35, and yet the least likely has half a percent.
LOGITS = torch.linspace(-2.0, 2.0, 12)[
    torch.randperm(12, generator=torch.Generator().manual_seed(1))
]
CONTEXT: dict[str, Any] = {"prompt": [0, 1, 2, 2, 3], "output": [2, 4, 4, 4, 5, 6], "eos": [7]}


def rows_along(axis: str, **request: Any) -> list[RowState]:
    """One request, or many that differ only in the seed or the number of the sample."""
    first = make_request(**{"seed": 11, **CONTEXT, **request})
    start = first.num_tokens
    numbers = range(NUM_DRAWS)
    if axis == "position":
        return [RowState(first, start + number) for number in numbers]
    return [
        RowState(replace(first, id=f"{first.id}-{number}", **{axis: number}), start)
        for number in numbers
    ]


def draws(
    rows: list[RowState], logits: Tensor = LOGITS, draw: Callable[..., Tensor] = race
) -> list[int]:
    ops = replace(select_ops("reference", CPU), race=draw)
    sampler = Sampler(len(logits), CPU, ops=ops)
    for request in {row.request.id: row.request for row in rows}.values():
        sampler.history.start(request)
    return sampler.sample(logits.repeat(len(rows), 1), rows).token_ids


CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "logit bias": {"logit_bias": {3: 1.5, 8: -0.7}},
    "allowed tokens": {"allowed_token_ids": [1, 5, 8, 9]},
    "bad words": {"bad_words": [[1], [5, 6, 9], [6, 8], [5, 3], [2, 4]]},
    "min tokens": {"min_tokens": 7, "stop_token_ids": [10]},
    "min tokens reached": {"min_tokens": 6, "stop_token_ids": [10]},
    "repetition penalty": {"repetition_penalty": 1.6},
    "presence penalty": {"presence_penalty": 0.8},
    "frequency penalty": {"frequency_penalty": 0.4},
    "penalties": {
        "repetition_penalty": 0.8,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.2,
    },
    "cold": {"temperature": 0.8},
    "hot": {"temperature": 1.8},
    "top-k": {"top_k": 5},
    "top-p": {"top_p": 0.8},
    "min-p": {"min_p": 0.1},
    "typical-p": {"typical_p": 0.5},
    "typical-p on a hot row": {"typical_p": 0.3, "temperature": 1.5},
    "top-k and top-p": {"top_k": 10, "top_p": 0.97},
    "all cut-offs": {
        "temperature": 0.8,
        "top_k": 10,
        "top_p": 0.97,
        "min_p": 0.04,
        "typical_p": 0.9,
    },
    "everything": {
        "logit_bias": {0: 1.0, 9: 0.5},
        "allowed_token_ids": [0, 1, 2, 3, 4, 5, 7, 9, 10, 11],
        "bad_words": [[6, 11]],
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.1,
        "temperature": 1.3,
        "top_k": 9,
        "top_p": 0.99,
        "min_p": 0.03,
        "typical_p": 0.98,
    },
}
# What depends on the number of output tokens cannot be repeated at many positions.
ALONG_SEEDS = {"min tokens", "min tokens reached"}


def exact(case: str) -> np.ndarray:
    return exact_probabilities(LOGITS.tolist(), **{**CONTEXT, **CASES[case]})


@pytest.mark.parametrize("case", CASES)
def test_draws_have_the_exact_distribution(case: str):
    rows = rows_along("seed" if case in ALONG_SEEDS else "position", **CASES[case])
    assert p_value(draws(rows), exact(case)) > LEAST_P


@pytest.mark.parametrize("axis", ["seed", "sample_index"])
def test_draws_of_other_seeds_and_samples_are_independent_too(axis: str):
    assert p_value(draws(rows_along(axis)), exact("nothing")) > LEAST_P


@pytest.mark.parametrize("case", [case for case in CASES if case != "nothing"])
def test_every_case_is_one_that_its_parameters_change(case: str):
    """Else a step that does nothing would pass."""
    is_changed = not np.allclose(exact(case), exact("nothing"), atol=1e-3)
    assert is_changed == (case != "min tokens reached")


# ---- the test itself: it notices what it should


MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "a temperature of 1.05 instead of 1": ("nothing", {"temperature": 1.05}),
    "a token too few": ("top-k", {"top_k": 4}),
    "a token too many": ("top-k", {"top_k": 6}),
    "a nucleus too small": ("top-p", {"top_p": 0.7}),
    "a penalty that counts the prompt": ("presence penalty", {"output": [0, 1, 2, 3, 4, 5, 6]}),
    "a bias a tenth too small": ("logit bias", {"logit_bias": {3: 1.35, 8: -0.63}}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_sampler_that_is_slightly_wrong_is_caught(mistake: str):
    case, wrong = MISTAKES[mistake]
    rows = rows_along("position", **{**CASES[case], **wrong})
    assert p_value(draws(rows), exact(case)) < LEAST_P


def reuse_every_key_twice(logits: Tensor, keys: Tensor) -> Tensor:
    return race(logits, keys[torch.arange(len(keys)) // 2])


def noise_a_tenth_too_small(logits: Tensor, keys: Tensor) -> Tensor:
    return race(1.1 * logits, keys)


def the_same_noise_for_all_tokens(logits: Tensor, keys: Tensor) -> Tensor:
    return logits.argmax(dim=1)


@pytest.mark.parametrize(
    "wrong_race", [noise_a_tenth_too_small, the_same_noise_for_all_tokens], ids=lambda f: f.__name__
)
def test_a_race_that_is_slightly_wrong_is_caught(wrong_race: Callable[..., Tensor]):
    tokens = draws(rows_along("position"), draw=wrong_race)
    assert p_value(tokens, exact("nothing")) < LEAST_P


def p_value_of_pairs(draw: Callable[..., Tensor] = race) -> float:
    """Test pairs of neighbouring draws: a pair's probability is a product."""
    probs = exact("hot")
    tokens = np.array(draws(rows_along("position", **CASES["hot"]), draw=draw))
    # Four classes of three tokens, so that all sixteen pairs are frequent.
    classes = np.argsort(np.argsort(probs)) // 3
    masses = np.bincount(classes, weights=probs)
    pairs = 4 * classes[tokens[::2]] + classes[tokens[1::2]]
    return p_value(pairs.tolist(), np.outer(masses, masses).ravel())


def test_neighbouring_draws_are_independent():
    assert p_value_of_pairs() > LEAST_P


def test_a_key_that_is_used_twice_is_caught():
    assert p_value_of_pairs(reuse_every_key_twice) < LEAST_P
