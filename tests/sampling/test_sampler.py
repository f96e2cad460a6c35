"""One token per row: greedy, drawn, and never changed by who stands beside it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tests.sampling.rows import CPU, make_request, normal, sample
from toolkit.request import Request
from toolkit.sampling import RowState, Sampler

# ---- greedy


@pytest.mark.parametrize("vocab_size", [1, 2, 7, 64, 1_000, 50_001])
def test_greedy_takes_the_most_likely_token_and_the_lowest_id_on_a_tie(vocab_size: int):
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randint(0, 4, (32, vocab_size), generator=generator).float()
    requests = [make_request(temperature=0.0) for _ in range(32)]
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert sample(logits, requests).token_ids == expected


def test_a_tiny_temperature_is_greedy():
    logits = normal(20, 50, seed=0, scale=0.01)
    requests = [make_request(temperature=1e-6, seed=seed) for seed in range(20)]
    assert sample(logits, requests).token_ids == logits.argmax(dim=1).tolist()


def test_greedy_rows_ignore_cut_offs_and_seed():
    logits = normal(10, 50, seed=1)
    requests = [
        make_request(temperature=0.0, seed=s, top_k=3, top_p=0.1, min_p=0.5) for s in range(10)
    ]
    assert sample(logits, requests).token_ids == logits.argmax(dim=1).tolist()


def test_no_rows_is_no_tokens():
    output = Sampler(9, CPU).sample(torch.zeros(0, 9), [])
    assert output.token_ids == []
    assert output.logprobs == {}


# ---- draws


def test_a_draw_depends_on_seed_sample_and_position():
    logits = torch.zeros(1, 1_000)
    base: dict[str, Any] = {"seed": 1, "sample_index": 0}
    draws = [
        sample(logits, [make_request(**base)], positions=[5]).token_ids[0],
        sample(logits, [make_request(**base)], positions=[6]).token_ids[0],
        sample(logits, [make_request(seed=2)], positions=[5]).token_ids[0],
        sample(logits, [make_request(seed=1, sample_index=1)], positions=[5]).token_ids[0],
    ]
    assert len(set(draws)) == 4
    again = sample(logits, [make_request(**base)], positions=[5]).token_ids[0]
    assert again == draws[0]


# ---- independence of the batch


def crowd(rng: random.Random, vocab_size: int, size: int) -> list[Request]:
    """Requests that use everything the sampler can do."""
    requests = []
    for _ in range(size):
        params: dict[str, Any] = {"temperature": rng.choice([0.0, 0.5, 1.0, 1.5])}
        if rng.random() < 0.4:
            params["top_k"] = rng.choice([1, 5, 300, vocab_size])
        if rng.random() < 0.4:
            params["top_p"] = rng.choice([0.3, 0.9, 0.999])
        if rng.random() < 0.3:
            params["min_p"] = 0.05
        if rng.random() < 0.2:
            params["typical_p"] = 0.8
        if rng.random() < 0.2:
            params["allowed_token_ids"] = rng.sample(range(vocab_size), k=vocab_size // 2)
        if rng.random() < 0.2:
            params["bad_words"] = [rng.choices(range(vocab_size), k=n) for n in (1, 2, 2, 3)]
        if rng.random() < 0.3:
            params["repetition_penalty"] = 1.3
        if rng.random() < 0.3:
            params["frequency_penalty"] = 0.7
        if rng.random() < 0.3:
            params["logit_bias"] = {rng.randrange(vocab_size): 3.0}
        if rng.random() < 0.3:
            params["logprobs"] = rng.randrange(4)
        if rng.random() < 0.2:
            params["min_tokens"] = 9
        if rng.random() < 0.2:
            params["logits_processors"] = [lambda logits, at: logits.roll(at.position)]
        requests.append(
            make_request(
                prompt=rng.choices(range(vocab_size), k=5),
                output=rng.choices(range(vocab_size), k=rng.randrange(6)),
                seed=rng.randrange(2**64),
                eos=[3],
                **params,
            )
        )
    return requests


@pytest.mark.parametrize("vocab_size", [17, 700])
@pytest.mark.parametrize("seed", range(6))
def test_batch_mates_and_their_order_change_nothing(seed: int, vocab_size: int):
    rng = random.Random(seed)
    requests = crowd(rng, vocab_size, 32)
    logits = normal(32, vocab_size, seed=seed, scale=rng.choice([0.3, 2.0, 6.0]))
    together = sample(logits, requests)
    order = list(range(32))
    rng.shuffle(order)
    shuffled = sample(logits[order], [requests[i] for i in order])
    half = sample(logits[:16], requests[:16])
    for index, request in enumerate(requests):
        alone = sample(logits[index : index + 1], [request])
        place = order.index(index)
        assert alone.token_ids[0] == together.token_ids[index] == shuffled.token_ids[place]
        assert alone.logprobs.get(0) == together.logprobs.get(index)
        assert alone.logprobs.get(0) == shuffled.logprobs.get(place)
        if index < 16:
            assert alone.token_ids[0] == half.token_ids[index]


def test_one_sampler_serves_changing_batches():
    """Rows join, leave and change places from step to step, as in an engine."""
    rng = random.Random(8)
    vocab_size = 60
    sampler = Sampler(vocab_size, CPU)
    requests = crowd(rng, vocab_size, 12)
    for request in requests:
        sampler.history.start(request)
    last: list[Request] = []
    for step in range(30):
        batch = rng.sample(requests, rng.randint(1, 12))
        if step % 3 == 0 and step:
            batch = last
        logits = normal(len(batch), vocab_size, seed=step)
        rows = [RowState(request, request.num_tokens) for request in batch]
        expected = sample(logits, batch)
        output = sampler.sample(logits.clone(), rows)
        assert output.token_ids == expected.token_ids
        assert output.logprobs == expected.logprobs
        for request, token_id in zip(batch, output.token_ids, strict=True):
            request.token_ids.append(token_id)
        last = batch


def test_a_sampler_prints_its_chain():
    assert Sampler(4, CPU).chain in repr(Sampler(4, CPU))


@pytest.mark.parametrize("params", [{"temperature": 0}, {"seed": 1}, {"seed": 1, "top_p": 0.9}])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_fail_their_row_alone(params: dict[str, Any], broken: float):
    logits = normal(3, 50, seed=3)
    sound = [make_request(**params) for _ in range(3)]
    expected = sample(logits, sound).token_ids
    logits[1, 7] = broken
    output = sample(logits, sound)
    assert list(output.errors) == [1]
    assert "not finite" in str(output.errors[1])
    assert [output.token_ids[row] for row in (0, 2)] == [expected[0], expected[2]]
