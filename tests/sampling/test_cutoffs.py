"""Top-k, top-p, min-p, typical-p, against a slow float64 computation and against transformers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tests.sampling.rows import Spy, kept, make_request, normal, sample

# Float32 cannot tell apart what lies closer to a threshold than this.
ROUNDING = 1e-5


def keep_slowly(logits: Tensor, params: dict[str, Any]) -> tuple[set[int], set[int]]:
    """Return the ids that are kept for certain, and those too close to a threshold to call."""
    scaled = logits.double().numpy() / params.get("temperature", 1.0)
    order = np.argsort(-scaled, kind="stable")
    top_k = params.get("top_k", 0) or len(order)
    order = order[: min(top_k, len(order))]
    weights = np.exp(scaled[order] - scaled[order[0]])
    probs = weights / weights.sum()
    top_p, min_p = params.get("top_p", 1.0), params.get("min_p", 0.0)
    certain, close = set(), set()
    before = 0.0
    for token_id, prob in zip(order.tolist(), probs, strict=True):
        by_p = top_p - before if top_p < 1.0 else 1.0
        by_min = prob / probs[0] - min_p if min_p else 1.0
        margin = min(by_p, by_min)
        if abs(margin) < ROUNDING:
            close.add(token_id)
        elif margin > 0:
            certain.add(token_id)
        before += prob
    return certain, close


def keep_with_transformers(logits: Tensor, params: dict[str, Any]) -> set[int]:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.get("temperature", 1.0))])
    if params.get("top_k"):
        warpers.append(TopKLogitsWarper(min(params["top_k"], len(logits))))
    if params.get("top_p", 1.0) < 1.0:
        warpers.append(TopPLogitsWarper(params["top_p"]))
    if params.get("min_p"):
        warpers.append(MinPLogitsWarper(params["min_p"]))
    warped = warpers(torch.zeros(1, 1, dtype=torch.int64), logits.unsqueeze(0).clone())
    return set(warped[0].isfinite().nonzero().squeeze(1).tolist())


def any_params(rng: random.Random, vocab_size: int) -> dict[str, Any]:
    params: dict[str, Any] = {"temperature": rng.choice([0.3, 0.7, 1.0, 1.0, 1.7])}
    if rng.random() < 0.6:
        params["top_k"] = rng.choice([1, 2, 5, 40, 200, 256, 257, 400, vocab_size, 10 * vocab_size])
    if rng.random() < 0.6:
        params["top_p"] = rng.choice([1e-6, 0.1, 0.5, 0.9, 0.95, 0.999, 0.99999])
    if rng.random() < 0.4:
        params["min_p"] = rng.choice([1e-6, 0.01, 0.1, 0.5, 1.0])
    return params


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
@pytest.mark.parametrize("vocab_size", [5, 50, 255, 256, 257, 1_000, 5_000])
def test_the_kept_set_is_the_slow_ones(vocab_size: int, scale: float):
    """Sixteen rows at once, greedy ones between them, each with cut-offs of its own."""
    rng = random.Random(vocab_size)
    logits = normal(16, vocab_size, seed=vocab_size, scale=scale)
    spies = [Spy("final") for _ in range(16)]
    all_params = [any_params(rng, vocab_size) for _ in range(16)]
    requests = [
        make_request(
            **({"temperature": 0.0} if index % 5 == 4 else params), logits_processors=[spy]
        )
        for index, (params, spy) in enumerate(zip(all_params, spies, strict=True))
    ]
    output = sample(logits, requests)
    for index, (params, spy) in enumerate(zip(all_params, spies, strict=True)):
        if index % 5 == 4:
            assert output.token_ids[index] == logits[index].argmax()
            continue
        found = set(spy.logits[0].isfinite().nonzero().squeeze(1).tolist())
        certain, close = keep_slowly(logits[index], params)
        assert certain <= found <= certain | close, params
        assert output.token_ids[index] in found


@pytest.mark.parametrize("vocab_size", [5, 100, 300, 2_000])
def test_the_kept_set_is_transformers(vocab_size: int):
    rng = random.Random(vocab_size + 1)
    for index in range(40):
        logits = normal(1, vocab_size, seed=1000 * vocab_size + index, scale=3.0)[0]
        params = any_params(rng, vocab_size)
        if params.get("min_p") == 1.0:
            del params["min_p"]  # they compare rounded probabilities, and may lose the first too
        _, close = keep_slowly(logits, params)
        assert kept(logits, **params) - close == keep_with_transformers(logits, params) - close


@pytest.mark.parametrize("vocab_size", [400, 5_000])
def test_a_nucleus_wider_than_the_first_candidates_is_found(vocab_size: int):
    logits = normal(1, vocab_size, seed=3, scale=0.1)[0]
    certain, close = keep_slowly(logits, {"top_p": 0.97})
    assert len(certain) > 256
    assert certain <= kept(logits, top_p=0.97) <= certain | close


def test_one_row_with_a_wide_nucleus_does_not_disturb_the_others():
    logits = torch.cat([normal(1, 1_000, seed=1, scale=0.1), normal(3, 1_000, seed=2, scale=9.0)])
    spies = [Spy("final") for _ in range(4)]
    requests = [make_request(top_p=0.9, logits_processors=[spy]) for spy in spies]
    sample(logits, requests)
    for row, spy in zip(logits, spies, strict=True):
        alone = seen_alone(row, top_p=0.9)
        assert torch.equal(spy.logits[0], alone)


def seen_alone(row: Tensor, **params: Any) -> Tensor:
    spy = Spy("final")
    sample(row.unsqueeze(0), [make_request(logits_processors=[spy], **params)])
    return spy.logits[0]


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("top_p", [0.999999, 0.9999999, 1 - 1e-9])
def test_a_top_p_just_below_one_is_no_trouble(top_p: float, scale: float):
    """Rounding may leave the sum of the kept probabilities just short of it."""
    logits = normal(64, 5_000, seed=9, scale=scale)
    for top_k in (0, 1, 2, 50, 256, 300):
        requests = [make_request(top_p=top_p, top_k=top_k, seed=row) for row in range(64)]
        for row, token_id in enumerate(sample(logits, requests).token_ids):
            rank = int((logits[row] > logits[row, token_id]).sum())
            assert rank < (top_k or 5_000)


def test_the_most_likely_token_always_stays():
    logits = torch.tensor([1.0, 3.0, 2.0])
    for params in ({"top_p": 1e-12}, {"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-45}):
        assert kept(logits, **params) == {1}


def test_tokens_that_tie_at_the_threshold_all_stay():
    logits = torch.tensor([2.0, 1.0, 2.0, 1.0, 0.0])
    assert kept(logits, top_k=1) == {0, 2}
    assert kept(logits, top_k=3) == {0, 1, 2, 3}
    assert kept(logits, top_p=0.2) == {0, 2}
    assert kept(logits, min_p=1.0) == {0, 2}


def test_top_p_counts_what_top_k_left():
    """Of two tokens with 3/5 and 2/5 of what is left, the first reaches a half alone."""
    logits = torch.tensor([0.3, 0.2, 0.19, 0.18, 0.13]).log()
    assert kept(logits, top_k=2, top_p=0.55) == {0}
    assert kept(logits, top_p=0.55) == {0, 1, 2}


def test_min_p_is_a_share_of_the_most_likely_token():
    logits = torch.tensor([0.5, 0.26, 0.24]).log()
    assert kept(logits, min_p=0.5) == {0, 1}


def test_min_p_looks_at_probabilities_after_the_temperature():
    logits = torch.tensor([0.0, -1.0])
    assert kept(logits, min_p=0.5) == {0}
    assert kept(logits, min_p=0.5, temperature=2.0) == {0, 1}


def test_cut_offs_that_are_off_keep_everything():
    logits = normal(1, 300, seed=4)[0]
    for params in ({}, {"top_k": 0}, {"top_k": -1}, {"top_k": 300}, {"top_k": 9_999}):
        assert kept(logits, **params) == set(range(300))


def test_tokens_that_are_impossible_stay_so():
    logits = torch.full((8,), -torch.inf)
    logits[[2, 5]] = torch.tensor([1.0, 0.5])
    for params in ({}, {"top_k": 4}, {"top_p": 0.999}, {"min_p": 1e-9}, {"top_k": 3, "top_p": 0.9}):
        assert kept(logits, **params) <= {2, 5}
        requests = [make_request(seed=seed, **params) for seed in range(50)]
        output = sample(logits.expand(50, 8), requests)
        assert set(output.token_ids) <= {2, 5}


# ---- typical-p


def keep_typical_slowly(logits: Tensor, typical_p: float) -> tuple[set[int], set[int]]:
    """Return the ids that are kept for certain, and those too close to the edge to call."""
    scaled = logits.double().numpy()
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    information = -np.log(probs)
    distance = np.abs(information - (probs * information).sum())
    order = np.argsort(distance, kind="stable")
    reached = probs[order].cumsum()
    last = int((reached < typical_p).sum())
    edge = distance[order[min(last, len(order) - 1)]]
    unclear = np.abs(reached[: last + 1] - typical_p).min() < ROUNDING
    close = np.flatnonzero(np.abs(distance - edge) < ROUNDING).tolist()
    if unclear:
        close += [int(order[place]) for place in range(max(0, last - 1), min(last + 2, len(order)))]
    return set(np.flatnonzero(distance <= edge).tolist()) - set(close), set(close)


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("vocab_size", [5, 100, 2_000])
def test_typical_p_keeps_the_slow_ones_and_transformers(vocab_size: int, scale: float):
    warper_input = torch.zeros(1, 1, dtype=torch.int64)
    for index, typical_p in enumerate([0.05, 0.2, 0.5, 0.8, 0.95, 0.999]):
        logits = normal(1, vocab_size, seed=100 * vocab_size + index, scale=scale)[0]
        found = kept(logits, typical_p=typical_p)
        certain, close = keep_typical_slowly(logits, typical_p)
        assert certain <= found <= certain | close
        warped = TypicalLogitsWarper(typical_p)(warper_input, logits.unsqueeze(0).clone())
        theirs = set(warped[0].isfinite().nonzero().squeeze(1).tolist())
        assert found - close == theirs - close


def test_typical_p_may_drop_the_most_likely_token():
    """The entropy is 2.71 nats; the likeliest token tells 0.92, each of the others 3.91."""
    logits = torch.tensor([0.4, *[0.02] * 30]).log()
    assert kept(logits, typical_p=0.5) == set(range(1, 31))
    assert kept(logits, typical_p=0.7) == set(range(31))


def test_typical_p_counts_what_the_other_cut_offs_left():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert kept(logits, typical_p=0.25) == {1}
    # Of two tokens with 5/7 and 2/7 the first is closer to the entropy, of all four the second.
    logits = torch.tensor([0.5, 0.2, 0.15, 0.15]).log()
    assert kept(logits, typical_p=0.5) == {0, 1}
    assert kept(logits, typical_p=0.5, top_k=2) == {0}


def test_a_typical_row_leaves_its_neighbours_alone():
    logits = normal(4, 300, seed=8)
    spies = [Spy("final") for _ in range(4)]
    wanted = [{"typical_p": 0.3}, {}, {"typical_p": 0.9, "top_k": 40}, {"temperature": 0.0}]
    sample(
        logits,
        [
            make_request(logits_processors=[spy], **params)
            for spy, params in zip(spies, wanted, strict=True)
        ],
    )
    for row, spy, params in zip(logits, spies, wanted, strict=True):
        assert torch.equal(spy.logits[0], seen_alone(row, **params))
    assert torch.equal(spies[1].logits[0], logits[1])
    assert torch.equal(spies[3].logits[0], logits[3])
