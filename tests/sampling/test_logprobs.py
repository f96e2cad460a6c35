"""Log-probabilities: the model's own, whatever the sampler does, and those after the chain."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.sampling.exact import exact_probabilities
from tests.sampling.rows import CPU, make_request, normal, sample
from toolkit.request import Logprob
from toolkit.sampling import Sampler
from toolkit.sampling.logprobs import gather_logprobs

VOCAB = 40


def gather(logits: Tensor, *, chosen: int, num_top: int) -> list[dict[int, Logprob]]:
    """One row's entries, with a chain that changed nothing."""
    return gather_logprobs(
        logits, logits, torch.tensor([chosen]), num_top=[num_top], decode_token=None
    )


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_values_and_ranks_are_those_of_the_softmax(num_top: int, scale: float):
    logits = normal(16, VOCAB, seed=num_top, scale=scale)
    requests = [make_request(seed=row, logprobs=num_top) for row in range(16)]
    output = sample(logits, requests)
    expected = logits.double().log_softmax(dim=1)
    for row, token_id in enumerate(output.token_ids):
        entries = output.logprobs[row]
        order = logits[row].argsort(descending=True).tolist()
        assert next(iter(entries)) == token_id
        assert set(entries) == {token_id, *order[:num_top]}
        for entry_id, entry in entries.items():
            assert entry.logprob == pytest.approx(float(expected[row, entry_id]), abs=1e-4)
            assert entry.rank == order.index(entry_id) + 1


def test_the_chosen_token_comes_first_and_the_others_by_rank():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    (entries,) = gather(logits, chosen=2, num_top=3)
    assert list(entries) == [2, 1, 3]
    assert [entry.rank for entry in entries.values()] == [3, 1, 2]


def test_a_chosen_token_among_the_top_is_listed_once():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    (entries,) = gather(logits, chosen=1, num_top=2)
    assert list(entries) == [1, 3]


def test_sampling_steps_do_not_change_them():
    logits = normal(2, VOCAB, seed=1)
    plain = make_request(logprobs=3, temperature=0.0)
    shaped = make_request(
        logprobs=3,
        temperature=0.3,
        top_k=1,
        logit_bias={int(logits[1].argmax()): 9.0},
        repetition_penalty=1.1,
        prompt=[4],
        logits_processors=[lambda logits, at: logits * 2],
    )
    output = sample(logits, [plain, shaped])
    expected = logits.log_softmax(dim=1)
    for row in (0, 1):
        for token_id, entry in output.logprobs[row].items():
            assert entry.logprob == pytest.approx(float(expected[row, token_id]), abs=1e-5)


def test_raw_processors_do_not_change_them_either():
    def double(logits, at):
        return 2 * logits

    double.stage = "raw"
    logits = normal(1, VOCAB, seed=2)
    output = sample(logits, [make_request(logprobs=0, temperature=0.0, logits_processors=[double])])
    ((token_id, entry),) = output.logprobs[0].items()
    assert entry.logprob == pytest.approx(float(logits.log_softmax(dim=1)[0, token_id]), abs=1e-5)


def test_only_rows_that_ask_get_them_and_as_many_as_they_ask_for():
    logits = normal(5, VOCAB, seed=3)
    wanted = [None, 0, 7, None, 2]
    requests = [make_request(logprobs=count, temperature=0.0) for count in wanted]
    output = sample(logits, requests)
    assert {row: len(entries) for row, entries in output.logprobs.items()} == {1: 1, 2: 7, 4: 2}


def test_more_than_the_vocabulary_is_the_vocabulary():
    output = sample(normal(1, 3, seed=4), [make_request(logprobs=20)])
    assert set(output.logprobs[0]) == {0, 1, 2}


def test_a_dominating_token_has_all_the_probability():
    logits = torch.zeros(1, VOCAB)
    logits[0, 7] = 200.0
    output = sample(logits, [make_request(logprobs=1)])
    assert output.logprobs[0][7].logprob == pytest.approx(0.0, abs=1e-6)


def test_an_impossible_token_has_none():
    logits = torch.tensor([[0.0, -torch.inf, 1.0]])
    (entries,) = gather(logits, chosen=2, num_top=3)
    assert entries[1].logprob == -torch.inf


def test_tokens_are_spelled_where_a_decoder_is_given():
    logits = normal(1, VOCAB, seed=5)
    request = make_request(logprobs=2, temperature=0.0)
    spelled = sample(logits, [request], decode_token=lambda token_id: f"<{token_id}>").logprobs[0]
    assert all(entry.decoded_token == f"<{token_id}>" for token_id, entry in spelled.items())
    silent = sample(logits, [request]).logprobs[0]
    assert all(entry.decoded_token is None for entry in silent.values())


# ---- after the chain


def test_processed_values_are_those_of_what_was_drawn_from():
    """Drawn rows and greedy ones side by side, against the formulas."""
    cut: dict[str, Any] = {"temperature": 0.7, "top_k": 6, "top_p": 0.9}
    shaped: dict[str, Any] = {"logit_bias": {3: 2.0}, "repetition_penalty": 1.5}
    wanted = [{}, cut, shaped, {**cut, **shaped}, {"temperature": 0.0, **shaped}]
    logits = normal(5, VOCAB, seed=6, scale=2.0)
    requests = [make_request(prompt=[1, 3], logprobs=20, **params) for params in wanted]
    output = sample(logits, requests)
    for row, params in enumerate(wanted):
        if params.get("temperature") == 0.0:
            params = {**params, "temperature": 1.0}
        probs = exact_probabilities(logits[row].tolist(), prompt=[1, 3], **params)
        for token_id, entry in output.logprobs[row].items():
            expected = float(torch.tensor(probs[token_id]).log())
            assert entry.logprob_processed == pytest.approx(expected, abs=1e-4)
        chosen = next(iter(output.logprobs[row].values()))
        assert chosen.logprob_processed is not None
        assert chosen.logprob_processed > -math.inf


def test_a_greedy_row_knows_neither_temperature_nor_cut_offs():
    logits = normal(1, VOCAB, seed=7)
    request = make_request(logprobs=20, temperature=0.0, top_k=2, top_p=0.1, typical_p=0.2)
    for entry in sample(logits, [request]).logprobs[0].values():
        assert entry.logprob_processed == pytest.approx(entry.logprob, abs=1e-6)


def test_processors_of_every_stage_count_in_processed_values_alone():
    for stage in ("raw", "default", "final"):

        def only_even(logits: Tensor, at: Any) -> Tensor:
            return torch.where(torch.arange(VOCAB) % 2 == 0, logits, -torch.inf)

        only_even.stage = stage
        logits = normal(1, VOCAB, seed=8)
        request = make_request(logprobs=20, logits_processors=[only_even])
        expected = logits[0].log_softmax(dim=0)
        share = expected[::2].logsumexp(dim=0)
        for token_id, entry in sample(logits, [request]).logprobs[0].items():
            after = float(expected[token_id] - share) if token_id % 2 == 0 else -math.inf
            assert entry.logprob == pytest.approx(float(expected[token_id]), abs=1e-5)
            assert entry.logprob_processed == pytest.approx(after, abs=1e-5)


def test_a_row_that_asks_for_the_whole_vocabulary_gets_it_alone():
    logits = normal(3, VOCAB, seed=9)
    requests = [make_request(logprobs=count) for count in (1, -1, None)]
    output = sample(logits, requests)
    assert set(output.logprobs) == {0, 1}
    assert len(output.logprobs[0]) <= 2
    entries = output.logprobs[1]
    assert sorted(entries) == list(range(VOCAB))
    assert sorted(entry.rank or 0 for entry in entries.values()) == list(range(1, VOCAB + 1))


def test_a_prompt_is_scored_as_if_each_token_were_the_first_of_an_output():
    """Penalties see the tokens before it, stops are held back, words of one token are banned."""
    prompt = [2, 5, 2, 9, 9, 1, 5, 11, 12, 13]
    params: dict[str, Any] = {
        "repetition_penalty": 1.4,
        "presence_penalty": 0.6,
        "frequency_penalty": 0.3,
        "logit_bias": {5: 1.5},
        "bad_words": [[9], [2, 1], [9, 9]],
        "min_tokens": 2,
        "temperature": 1.3,
        "min_p": 1e-3,
    }
    logits = normal(9, VOCAB, seed=10, scale=2.0)
    request = make_request(prompt=prompt, output=[4, 4], eos=[1], prompt_logprobs=20, **params)
    sampler = Sampler(VOCAB, CPU)
    for start in (1, 4):  # in one piece, and from the middle
        entries = sampler.score_prompt(logits[start - 1 :].clone(), request, start)
        assert [next(iter(entry)) for entry in entries] == prompt[start:]
        for position, entry in enumerate(entries, start=start):
            raw = logits[position - 1].log_softmax(dim=0)
            probs = exact_probabilities(
                logits[position - 1].tolist(), prompt=prompt[:position], eos=[1], **params
            )
            for token_id, one in entry.items():
                assert one.logprob == pytest.approx(float(raw[token_id]), abs=1e-5)
                after = float(torch.tensor(probs[token_id]).log())
                assert one.logprob_processed == pytest.approx(after, abs=1e-4)


def test_scoring_a_prompt_leaves_logits_and_history_alone():
    logits = normal(3, VOCAB, seed=11)
    before = logits.clone()
    request = make_request(prompt=[1, 2, 3, 4], prompt_logprobs=2, temperature=0.5, top_k=2)
    sampler = Sampler(VOCAB, CPU)
    sampler.score_prompt(logits, request, 1)
    assert torch.equal(logits, before)
    assert sampler.history.num_slots == 0
