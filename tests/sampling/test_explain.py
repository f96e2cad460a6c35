"""Facts of sampled tokens and explanations: true, small, and enough to choose again."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.rows import CPU, make_request, normal
from tests.sampling.test_stages import VOCAB, parameters, tokens
from toolkit.errors import EngineError
from toolkit.request import Request
from toolkit.sampling import Explanation, RowState, Sampler, SamplerOutput
from toolkit.sampling.facts import Facts


def sampled(
    logits: torch.Tensor, *requests: Request, decode: Callable[[int], str] | None = None
) -> SamplerOutput:
    """What a sampler that explains everybody says of these rows."""
    sampler = Sampler(logits.shape[1], CPU, decode_token=decode, explains_all=lambda: True)
    for request in requests:
        sampler.history.start(request)
    return sampler.sample(logits.clone(), [RowState(r, r.num_tokens) for r in requests])


def facts_from(logits: list[float], **params: Any) -> Facts:
    return sampled(torch.tensor([logits]), make_request(**params), decode=chr_of).facts[0]


def chr_of(token_id: int) -> str:
    return chr(ord("A") + token_id)


@given(parameters, tokens, tokens, st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_every_sampled_token_follows_from_its_own_facts(
    params: dict[str, Any], prompt: list[int], output: list[int], seed: int, sample_index: int
):
    logits = normal(1, VOCAB, seed=seed % 1000, scale=2.0)
    request = make_request(
        prompt=prompt, output=output, eos=[3], seed=seed, sample_index=sample_index, **params
    )
    found = sampled(logits, request)
    if found.errors:  # the masks left nothing
        assert found.facts == {}
        return
    facts = json.loads(json.dumps(found.facts[0], allow_nan=False))  # they travel as JSON
    assert facts == found.facts[0]
    explanation = Explanation(facts)
    assert explanation.reproduce() == explanation.token_id == found.token_ids[0]
    winner = explanation.race.iloc[0]
    assert winner["token_id"] == explanation.token_id
    assert winner["sum"] == explanation.race["sum"].max()


def test_a_thousand_candidates_are_cut_to_those_that_matter_and_still_choose_the_same():
    logits = normal(50, 5_000, seed=1, scale=1.0)
    found = sampled(logits, *[make_request(seed=seed) for seed in range(50)])
    for row, token_id in enumerate(found.token_ids):
        facts = found.facts[row]
        assert facts["num_kept"] == 5_000
        assert len(facts["candidates"]["token_id"]) <= 40
        assert len(json.dumps(facts)) < 8_000
        assert Explanation(facts).reproduce() == token_id


def test_other_numbers_give_another_token():
    facts = facts_from([0.0, 0.1, 0.2, 0.3], seed=1)
    others = {Explanation({**facts, "seed": seed}).reproduce() for seed in range(20)}
    assert len(others) > 1
    logit = [value - 99.0 * (t == facts["token_id"]) for t, value in candidates(facts, "logit")]
    changed = {**facts, "candidates": {**facts["candidates"], "logit": logit}}
    assert Explanation(changed).reproduce() != facts["token_id"]


def candidates(facts: Facts, column: str) -> list[tuple[int, Any]]:
    return list(zip(facts["candidates"]["token_id"], facts["candidates"][column], strict=True))


# ---- what is told


def test_probabilities_ranks_and_entropy_are_the_models():
    probs = [0.5, 0.25, 0.125, 0.125]
    facts = facts_from([math.log(p) for p in probs], temperature=0.0, logit_bias={2: 9.0})
    explanation = Explanation(facts)
    assert (explanation.token_id, explanation.text, explanation.rank_raw) == (2, "C", 3)
    assert explanation.probability_raw == pytest.approx(0.125)
    assert explanation.entropy_nats == pytest.approx(1.75 * math.log(2))
    assert explanation.logit_raw == pytest.approx(math.log(0.125))
    data = explanation.data.set_index("token_id")
    assert data["probability_raw"].to_dict() == pytest.approx(dict(enumerate(probs)))
    assert data["probability"].sum() == pytest.approx(1.0)
    assert explanation.probability == pytest.approx(data["probability"][2])
    assert facts["rank_raw"] == 3


def test_steps_tell_the_logit_before_and_after_each_and_how_many_stay():
    facts = facts_from(
        [2.0, 1.0, 0.0, -1.0], temperature=0.5, logit_bias={3: 5.0}, top_k=2, top_p=0.9, seed=3
    )
    explanation = Explanation({**facts, "token_id": 3})
    steps = explanation.steps.set_index("step")
    assert steps.index[0] == "raw logits"
    changed = steps[steps["changed"]]
    assert list(changed.index) == ["logit bias", "temperature", "top-k", "top-p"]
    assert changed["logit_before"].tolist() == [-1.0, 4.0, 8.0, 8.0]
    assert changed["logit_after"].tolist() == [4.0, 8.0, 8.0, 8.0]
    assert changed["num_kept"].tolist() == [4, 4, 2, 1]
    table = explanation.logits
    assert table.loc["raw logits"].to_dict() == {3: -1.0, 0: 2.0, 1: 1.0, 2: 0.0}
    assert table.loc["top-p", 0] == -math.inf
    assert explanation.kept["token_id"].tolist() == [3]


def test_a_greedy_token_has_a_margin_and_no_draw():
    explanation = Explanation(facts_from([1.0, 4.0, 3.5], temperature=0))
    assert explanation.chosen_by == "greedy"
    assert explanation.is_greedy
    assert explanation.margin == pytest.approx(0.5)
    assert set(explanation.race["number"]) == {0.0}
    assert "logit was the largest, by 0.5 over 'C'" in explanation.sentence
    assert "key" not in explanation.surroundings()


def test_a_drawn_token_tells_its_key_and_the_sums():
    explanation = Explanation(facts_from([1.0, 1.5, 0.5], seed=9))
    race = explanation.race
    assert race["place"].tolist() == [1, 2, 3]
    assert explanation.margin == pytest.approx(race["sum"][0] - race["sum"][1])
    assert race["sum"].tolist() == pytest.approx((race["logit"] + race["number"]).tolist())
    assert explanation.chosen_by == "sampled"
    assert f"{race['sum'][0]:.2f}" in explanation.sentence
    assert "of seed 9, sample 0, position 1" in explanation.surroundings()["key"]
    assert f"{explanation.key:#018x}" in repr(explanation)


def test_a_single_possible_token_is_said_to_be_that():
    explanation = Explanation(facts_from([1.0, 2.0, 3.0], allowed_token_ids=[0]))
    assert explanation.margin is None
    assert "only token left" in explanation.sentence


def test_a_replaced_token_is_told_beside_the_drawn_one():
    facts = facts_from([1.0, 9.0, 3.0], temperature=0)
    explanation = Explanation({**facts, "token_id": 2, "source": "grammar"})
    assert explanation.reproduce() == 1
    assert "the draw gave 'B', and the grammar put this in its place" in explanation.sentence


def test_pictures_hold_what_is_said():
    explanation = Explanation(facts_from([1.0, 2.0, 3.0], seed=1, top_k=2))
    page = explanation._repr_html_()
    assert page.count("<rect") == 2 * 3
    assert "top-k" in page
    assert "currentColor" in page
    figure = explanation.figure()
    assert figure.data.equals(explanation.data)
    figure.draw_without_rendering()


def test_texts_of_tokens_cannot_break_the_page():
    facts = sampled(torch.zeros(1, 3), make_request(), decode=lambda t: f"<b>${t}").facts[0]
    explanation = Explanation(facts)
    assert "<b>$" not in explanation._repr_html_()
    explanation.figure().draw_without_rendering()


def test_without_a_tokenizer_tokens_are_numbers():
    facts = sampled(torch.tensor([[0.0, 9.0]]), make_request(temperature=0)).facts[0]
    explanation = Explanation(facts)
    assert explanation.text is None
    assert "token 1" in explanation.sentence
    assert "#1" in explanation._repr_html_()


# ---- whose


def test_without_being_asked_a_sampler_has_no_facts_and_no_entropy():
    request = make_request(seed=1)
    sampler = Sampler(9, CPU)
    output = sampler.sample(torch.zeros(1, 9), [RowState(request, 1)])
    assert (output.facts, output.entropies) == ({}, {})


def test_log_probabilities_come_with_the_entropy_of_the_model():
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25), -math.inf]])
    output = Sampler(4, CPU).sample(logits, [RowState(make_request(logprobs=0, top_k=1), 1)])
    assert output.entropies == pytest.approx({0: 1.5 * math.log(2)})


def test_a_function_chooses_whose_tokens_are_explained():
    sampler = Sampler(9, CPU)
    sampler.explain_if(lambda request: request.tags.get("why"))
    requests = [make_request(), make_request(tags={"why": True}), make_request()]
    rows = [RowState(request, 1) for request in requests]
    logits = normal(3, 9, seed=2)
    output = sampler.sample(logits.clone(), rows)
    assert list(output.facts) == [1]
    assert output.facts[1]["logit_raw"] == float(logits[1, output.token_ids[1]])
    sampler.explain_if(None)
    assert sampler.sample(logits.clone(), rows).facts == {}


def test_a_function_that_raises_ends_the_explaining_not_the_step(
    caplog: pytest.LogCaptureFixture,
):
    sampler = Sampler(9, CPU)
    sampler.explain_if(lambda request: request.nothing)  # type: ignore[attr-defined]
    rows = [RowState(make_request(seed=1), 1)]
    with caplog.at_level(logging.WARNING):
        outputs = [sampler.sample(torch.zeros(1, 9), rows) for _ in range(2)]
    assert [output.facts for output in outputs] == [{}, {}]
    assert len(caplog.records) == 1


def test_explaining_changes_no_token():
    logits = normal(20, 60, seed=5)
    requests = [make_request(seed=s, top_p=0.9, repetition_penalty=1.2) for s in range(20)]
    plain = Sampler(60, CPU)
    for request in requests:
        plain.history.start(request)
    rows = [RowState(request, request.num_tokens) for request in requests]
    assert plain.sample(logits.clone(), rows).token_ids == sampled(logits, *requests).token_ids


def test_a_sampler_without_an_engine_cannot_look_a_request_up():
    with pytest.raises(EngineError, match="no LLM"):
        Sampler(9, CPU).explain("req-0", 3)
