"""What changes logits before the cut: bias, held-back stops, penalties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from tests.sampling.rows import CPU, make_request, normal, sample, seen_at
from toolkit.sampling import Sampler

VOCAB = 30


def test_a_bias_is_added_to_its_tokens_alone():
    logits = normal(1, VOCAB, seed=0)[0]
    expected = logits.clone()
    expected[3] += 2.5
    expected[9] -= 1.0
    assert torch.equal(seen_at("default", logits, logit_bias={3: 2.5, 9: -1.0}), expected)


def test_a_bias_is_clamped_to_a_hundred():
    logits = normal(1, VOCAB, seed=0)[0]
    expected = logits.clone()
    expected[3] += 100.0
    expected[9] -= 100.0
    assert torch.equal(seen_at("default", logits, logit_bias={3: 1e9, 9: -1e9}), expected)


def test_a_bias_of_a_hundred_decides():
    logits = normal(4, VOCAB, seed=1, scale=5.0)
    requests = [make_request(logit_bias={7: 100}, temperature=t) for t in (0.0, 1.0, 0.0, 1.0)]
    assert sample(logits, requests).token_ids == [7] * 4


def test_biases_of_several_rows_do_not_mix():
    logits = torch.zeros(3, VOCAB)
    requests = [
        make_request(logit_bias={1: 5}, temperature=0.0),
        make_request(temperature=0.0),
        make_request(logit_bias={2: 5, 1: 1}, temperature=0.0),
    ]
    assert sample(logits, requests).token_ids == [1, 0, 2]


# ---- min tokens


@pytest.mark.parametrize(("num_output", "masked"), [(0, True), (1, True), (2, False), (3, False)])
def test_stops_are_held_back_until_min_tokens(num_output: int, masked: bool):
    logits = normal(1, VOCAB, seed=2)[0]
    seen = seen_at(
        "default", logits, output=[1] * num_output, eos=[4], stop_token_ids=[8], min_tokens=2
    )
    assert set((seen == -torch.inf).nonzero().squeeze(1).tolist()) == ({4, 8} if masked else set())


def test_an_ignored_end_is_not_held_back():
    logits = normal(1, VOCAB, seed=2)[0]
    seen = seen_at("default", logits, eos=[4], stop_token_ids=[8], min_tokens=2, ignore_eos=True)
    assert set((seen == -torch.inf).nonzero().squeeze(1).tolist()) == {8}


def test_without_min_tokens_nothing_is_held_back():
    logits = normal(1, VOCAB, seed=2)[0]
    assert torch.equal(seen_at("default", logits, eos=[4], stop_token_ids=[8]), logits)


def test_a_held_back_stop_is_not_drawn_even_when_it_is_likeliest():
    logits = torch.zeros(40, VOCAB)
    logits[:, 4] = 50.0
    requests = [
        make_request(eos=[4], min_tokens=3, seed=seed, temperature=float(seed % 2))
        for seed in range(40)
    ]
    assert 4 not in sample(logits, requests).token_ids


# ---- penalties


def penalise_slowly(
    logits: Tensor, prompt: list[int], output: list[int], *, presence: float, frequency: float
) -> Tensor:
    """OpenAI's formula: mu[j] - c[j] * frequency - float(c[j] > 0) * presence."""
    penalised = logits.clone()
    for token_id in set(output):
        penalised[token_id] -= output.count(token_id) * frequency + presence
    return penalised


@pytest.mark.parametrize("presence", [0.0, 1.5, -0.7])
@pytest.mark.parametrize("frequency", [0.0, 0.4, -2.0])
def test_presence_and_frequency_are_openais(presence: float, frequency: float):
    logits = normal(1, VOCAB, seed=3)[0]
    prompt, output = [1, 2, 2, 3], [2, 5, 5, 5, 7]
    seen = seen_at(
        "default",
        logits,
        prompt=prompt,
        output=output,
        presence_penalty=presence,
        frequency_penalty=frequency,
    )
    expected = penalise_slowly(logits, prompt, output, presence=presence, frequency=frequency)
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("penalty", [1.3, 0.6, 5.0])
def test_repetition_is_transformers(penalty: float):
    logits = normal(1, VOCAB, seed=4, scale=3.0)
    prompt, output = [1, 2, 2, 3], [2, 5, 5, 5, 7]
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([prompt + output]), logits.clone()
    )
    seen = seen_at("default", logits[0], prompt=prompt, output=output, repetition_penalty=penalty)
    torch.testing.assert_close(seen, theirs[0])


def test_repetition_comes_before_presence_and_frequency():
    logits = normal(1, VOCAB, seed=5, scale=3.0)
    prompt, output = [1], [1, 2, 2]
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([prompt + output]), logits.clone())
    expected = penalise_slowly(theirs[0], prompt, output, presence=0.5, frequency=0.25)
    seen = seen_at(
        "default",
        logits[0],
        prompt=prompt,
        output=output,
        repetition_penalty=1.7,
        presence_penalty=0.5,
        frequency_penalty=0.25,
    )
    torch.testing.assert_close(seen, expected)


def test_penalties_see_the_biased_logits():
    logits = torch.tensor([1.0, -4.0, 0.0])
    seen = seen_at("default", logits, prompt=[1], logit_bias={1: 5.0}, repetition_penalty=2.0)
    assert seen.tolist() == [1.0, 0.5, 0.0]


def test_an_impossible_token_stays_impossible_under_penalties():
    logits = torch.tensor([0.0, -torch.inf, 1.0])
    seen = seen_at(
        "default",
        logits,
        prompt=[1],
        output=[1],
        repetition_penalty=1.5,
        frequency_penalty=-2.0,
        presence_penalty=-2.0,
    )
    assert seen[1] == -torch.inf
    assert not seen.isnan().any()


def test_rows_without_penalties_are_untouched_beside_rows_with():
    logits = normal(3, VOCAB, seed=6)
    plain = [make_request(temperature=0.0) for _ in range(2)]
    hard = make_request(prompt=range(VOCAB), repetition_penalty=9.0, temperature=0.0)
    output = sample(logits, [plain[0], hard, plain[1]])
    assert output.token_ids[0] == logits[0].argmax()
    assert output.token_ids[2] == logits[2].argmax()


# ---- the history that penalties are computed from


def test_every_sampled_token_counts_from_the_next_step_on():
    sampler = Sampler(VOCAB, CPU)
    request = make_request(frequency_penalty=2.0, temperature=0.0)
    sampler.history.start(request)
    logits = torch.zeros(1, VOCAB)
    logits[0, :3] = torch.tensor([3.0, 2.0, 1.0])
    chosen = []
    from toolkit.sampling import RowState

    for _ in range(6):
        output = sampler.sample(logits.clone(), [RowState(request, request.num_tokens)])
        request.token_ids += output.token_ids
        chosen += output.token_ids
    # 3 2 1 -> 1 2 1 -> 1 0 1 (0 before 2 on a tie) -> -1 0 1 -> ...
    assert chosen == [0, 1, 0, 2, 1, 3]


def test_a_resumed_request_counts_the_same_as_one_that_never_stopped():
    sampler = Sampler(VOCAB, CPU)
    request = make_request(prompt=[1, 2], presence_penalty=1.0)
    sampler.history.start(request)
    for token_id in (5, 5, 9):
        request.token_ids.append(token_id)
        sampler.history.append([request], torch.tensor([token_id]))
    counts, in_prompt = sampler.history.gather([request])
    sampler.history.start(request)
    again, in_prompt_again = sampler.history.gather([request])
    assert torch.equal(counts, again)
    assert torch.equal(in_prompt, in_prompt_again)
    assert counts[0, 5] == 2
    assert in_prompt[0].nonzero().squeeze(1).tolist() == [1, 2]


def test_a_history_is_kept_only_while_it_is_needed():
    sampler = Sampler(VOCAB, CPU)
    plain, penalised = make_request(), make_request(presence_penalty=1.0)
    for request in (plain, penalised):
        sampler.history.start(request)
    assert sampler.history.num_slots == 1
    sampler.history.append([penalised], torch.tensor([3]))
    with pytest.raises(KeyError):
        sampler.history.gather([plain])
    for request in (plain, penalised):
        sampler.history.forget(request.id)
        sampler.history.forget(request.id)
    assert sampler.history.num_slots == 0
    with pytest.raises(KeyError):
        sampler.history.gather([penalised])


def test_a_slot_that_was_used_before_starts_from_nothing():
    history = Sampler(VOCAB, CPU).history
    stays, leaves, comes = (
        make_request(prompt=[number], output=[number, number], presence_penalty=1.0)
        for number in (1, 2, 3)
    )
    for request in (stays, leaves):
        history.start(request)
    history.append([leaves, stays], torch.tensor([7, 8]))
    history.forget(leaves.id)
    history.start(comes)
    assert history.num_slots == 2
    counts, in_prompt = history.gather([comes, stays])
    assert [row.nonzero().squeeze(1).tolist() for row in counts] == [[3], [1, 8]]
    assert [row.nonzero().squeeze(1).tolist() for row in in_prompt] == [[3], [1]]
