"""One row through the chain, shown step by step: what is shown is what the sampler does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.exact import exact_probabilities
from tests.sampling.rows import CPU, make_request, normal, sample
from toolkit.errors import InvalidParameter, InvalidRequest, ModelError
from toolkit.sampling import Sampler, Stages, gumbel_noise, row_keys, sampling_stages
from toolkit.sampling_params import SamplingParams

VOCAB = 40


def double(logits: torch.Tensor, at: Any) -> torch.Tensor:
    return logits * 2


def shift(logits: torch.Tensor, at: Any) -> torch.Tensor:
    return logits.roll(at.position)


double.stage = "raw"  # type: ignore[attr-defined]

token = st.integers(0, VOCAB - 1)
parameters = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7])},
    optional={
        "top_k": st.integers(1, VOCAB + 5),
        "top_p": st.sampled_from([0.05, 0.5, 0.95]),
        "min_p": st.sampled_from([0.01, 0.3]),
        "typical_p": st.sampled_from([0.2, 0.9]),
        "repetition_penalty": st.sampled_from([0.7, 1.4]),
        "presence_penalty": st.sampled_from([-1.0, 1.5]),
        "frequency_penalty": st.sampled_from([-0.5, 2.0]),
        "logit_bias": st.dictionaries(token, st.floats(-5, 5), max_size=3),
        "allowed_token_ids": st.lists(token, min_size=8, max_size=20),
        "bad_words": st.lists(st.lists(token, min_size=1, max_size=3), max_size=3),
        "min_tokens": st.integers(0, 9),
        "logits_processors": st.lists(st.sampled_from([double, shift]), max_size=2),
    },
)
tokens = st.lists(token, min_size=1, max_size=6)


@given(parameters, tokens, tokens, st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_the_last_logits_and_the_race_give_the_token_that_the_sampler_takes(
    params: dict[str, Any], prompt: list[int], output: list[int], seed: int, sample_index: int
):
    where: dict[str, Any] = {"seed": seed, "sample_index": sample_index}
    logits = normal(1, VOCAB, seed=seed % 1000, scale=2.0)
    request = make_request(prompt=prompt, output=output, eos=[3], **where, **params)
    sampled = sample(logits, [request])
    shown = dict(prompt_token_ids=prompt, output_token_ids=output, eos_token_ids=[3], **where)
    if 0 in sampled.errors:  # the masks left nothing
        with pytest.raises(InvalidRequest):
            sampling_stages(logits[0], SamplingParams(**params), **shown)
        return
    stages = sampling_stages(logits[0], SamplingParams(**params), **shown)
    assert stages.token_id == sampled.token_ids[0]
    last = stages.stages[-1].logits
    winner = int(stages.race.token_ids[0])
    assert winner == stages.token_id
    if params["temperature"] == 0.0:
        assert winner == int(last.argmax())
    else:
        key = torch.from_numpy(row_keys([seed], [sample_index], [request.num_tokens]).view("int64"))
        assert winner == int((last + gumbel_noise(key, torch.arange(VOCAB))).argmax())


def names(stages: Stages) -> list[str]:
    return [stage.name for stage in stages.stages]


def changes(stages: Stages) -> list[str]:
    return [stage.name for stage in stages.stages if stage.changed]


def test_the_stages_are_those_of_the_chain_in_its_order():
    stages = sampling_stages(torch.zeros(5), SamplingParams())
    assert " -> ".join([*names(stages)[1:], "draw"]) == Sampler(5, CPU).chain
    assert names(stages)[0] == "raw logits"
    assert changes(stages) == []


def test_top_k_top_p_and_min_p_are_shown_apart():
    probs = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    params = SamplingParams(top_k=5, top_p=0.8, min_p=0.5)
    stages = sampling_stages(probs.log(), params)
    kept = {stage.name: stage.kept for stage in stages.stages}
    # Of five tokens with 0.96 together, four reach 0.8; half as likely as the first are two.
    assert [kept[name] for name in ("temperature", "top-k", "top-p", "min-p")] == [6, 5, 3, 2]
    assert stages.kept().tolist() == [0, 1]
    assert stages.kept(names(stages).index("top-k")).tolist() == [0, 1, 2, 3, 4]


@given(parameters, tokens, st.integers(0, 999))
def test_the_last_probabilities_are_those_of_the_formulas(
    params: dict[str, Any], output: list[int], seed: int
):
    params = {**params, "temperature": params["temperature"] or 1.0}
    params.pop("logits_processors", None)
    logits = normal(1, VOCAB, seed=seed)[0]
    known: dict[str, Any] = {"output_token_ids": output}
    try:
        stages = sampling_stages(logits, SamplingParams(**params), eos_token_ids=[3], **known)
    except InvalidRequest:
        return
    exact = exact_probabilities(logits.tolist(), output=output, eos=[3], **params)
    assert stages.probabilities().tolist() == pytest.approx(exact.tolist(), abs=1e-5)


def test_a_grammar_mask_is_a_stage():
    forbidden = torch.tensor([True, False, True, False])
    form = SamplingParams(structured_outputs={"regex": "a"}, temperature=0)
    stages = sampling_stages(torch.tensor([9.0, 1.0, 8.0, 2.0]), form, forbidden=forbidden)
    assert changes(stages) == ["grammar mask"]
    assert stages.token_id == 3
    assert sampling_stages(torch.tensor([9.0, 1.0]), form).token_id == 0


def test_the_logits_given_stay_as_they_are():
    logits = normal(1, 9, seed=0)[0]
    before = logits.clone()
    sampling_stages(logits, SamplingParams(temperature=0.5, top_k=2, logit_bias={1: 5.0}))
    assert torch.equal(logits, before)


def test_half_precision_logits_are_taken_as_float32():
    stages = sampling_stages(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), SamplingParams())
    assert stages.stages[-1].logits.dtype == torch.float32


def test_a_greedy_choice_has_no_random_numbers_and_the_lowest_id_of_a_tie_is_first():
    race = sampling_stages(torch.tensor([1.0, 3.0, 3.0]), SamplingParams(temperature=0)).race
    assert race.token_ids.tolist() == [1, 2, 0]
    assert race.numbers.tolist() == [0.0, 0.0, 0.0]
    assert race.sums.tolist() == [3.0, 3.0, 1.0]


def test_seed_sample_and_position_make_the_key():
    logits = torch.zeros(50)
    base = sampling_stages(logits, SamplingParams(seed=5))
    assert base.key == int(row_keys([5], [0], [0])[0])
    assert sampling_stages(logits, SamplingParams(), seed=5).key == base.key
    others = [
        sampling_stages(logits, SamplingParams(seed=6)),
        sampling_stages(logits, SamplingParams(seed=5), sample_index=1),
        sampling_stages(logits, SamplingParams(seed=5), position=1),
        sampling_stages(logits, SamplingParams(seed=5), prompt_token_ids=[4, 4]),
    ]
    assert len({base.key, *(stages.key for stages in others)}) == 5


@pytest.mark.parametrize(
    ("logits", "params", "options", "what"),
    [
        (torch.zeros(2, 3), {}, {}, "one row"),
        (torch.zeros(0), {}, {}, "one row"),
        (torch.zeros(3), {"bad_words": ["no"]}, {}, "bad_word_ids"),
        (torch.zeros(3), {}, {"prompt_token_ids": [1, 2], "position": 1}, "position=1"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    logits: torch.Tensor, params: dict[str, Any], options: dict[str, Any], what: str
):
    with pytest.raises(InvalidParameter, match=what):
        sampling_stages(logits, SamplingParams(**params), **options)


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ModelError, match="not finite"):
        sampling_stages(torch.tensor([1.0, torch.nan]), SamplingParams())


def test_what_a_processor_raises_reaches_the_caller():
    def broken(logits: torch.Tensor, at: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sampling_stages(torch.zeros(3), SamplingParams(logits_processors=[broken]))


def test_stages_print_what_changed():
    text = repr(sampling_stages(torch.tensor([1.0, 0.0]), SamplingParams(top_k=1)))
    assert text == "Stages(token 0; kept after top-k: 1)"
