"""llm.explain on the bundled model: recorded or recomputed, it tells what the engine did."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from toolkit import LLM, Hook, Request, SamplingParams
from toolkit.engine.events import StepFinished
from toolkit.errors import EngineClosed, InvalidRequest
from toolkit.sampling import Explanation
from toolkit.sampling.facts import Facts

SHARED = "The cache keeps what the prompts have in common, so that it is computed once. " * 2
# Float32 on other paths through the kernels: sums in another order.
CLOSE = 1e-3


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    """An LLM with few blocks and small steps: prompts are chunked, requests are preempted."""
    limits = {"max_num_seqs": 12, "num_kv_blocks": 24, "max_num_batched_tokens": 40}
    with LLM(dtype="float32", max_model_len=256, **limits) as made:
        yield made


def shift(logits: torch.Tensor, at: Any) -> torch.Tensor:
    logits[at.position % 7] += 3.0
    return logits


VARIETY: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"top_k": 8, "top_p": 0.9},
    {"min_p": 0.05, "temperature": 1.5},
    {"typical_p": 0.7},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5},
    {"frequency_penalty": 1.0, "temperature": 0.0},
    {"logit_bias": {17: 4.0, 404: -3.0}, "bad_words": ["the", [5, 6]]},
    {"logits_processors": [shift], "temperature": 1.2},
    {"n": 3, "temperature": 1.3},
    {"min_tokens": 4, "allowed_token_ids": list(range(200))},
    {"structured_outputs": {"regex": "(yes|no), [a-z]{3,9}"}},
    {"structured_outputs": {"json": {"type": "array", "items": {"type": "integer"}}}},
]


def run_explained(llm: LLM, count: int, *, max_tokens: int) -> tuple[list[Request], list[Facts]]:
    """Run requests of all kinds beside one another; return their samples and all facts."""
    rng = random.Random(1)
    facts: list[Facts] = []

    def keep(event: StepFinished) -> None:
        for update in event.report.updates:
            facts.extend(token.facts for token in update.tokens if token.facts is not None)

    unsubscribe = llm.engine.on(StepFinished, keep)
    llm.engine.sampler.explain_if(lambda request: True)
    try:
        leaders = []
        for number in range(count):
            params = SamplingParams(
                **{"seed": number, "max_tokens": max_tokens, **VARIETY[number % len(VARIETY)]},
                ignore_eos=number % 4 != 3,
            )
            prompt = SHARED * (number % 2) + " ".join(rng.choices(["an", "odd", "Question"], k=9))
            leaders.append(llm.engine.add(prompt, params))
        llm.engine.run_until_idle()
    finally:
        unsubscribe()
        llm.engine.sampler.explain_if(None)
    return [sample for leader in leaders for sample in leader.samples], facts


@pytest.fixture(scope="module")
def crowd(llm: LLM) -> tuple[list[Request], list[Facts]]:
    return run_explained(llm, 26, max_tokens=24)


def test_every_token_of_a_crowd_has_facts_that_choose_it_again(
    crowd: tuple[list[Request], list[Facts]],
):
    samples, facts = crowd
    by_token = {(one["request_id"], one["position"]): one for one in facts}
    assert sum(sample.num_preemptions for sample in samples) > 0
    assert any(sample.num_cached_tokens for sample in samples)
    assert all(sample.error is None for sample in samples)
    assert len(by_token) == len(facts) == sum(sample.num_output_tokens for sample in samples)
    for sample in samples:
        for index, token_id in enumerate(sample.output_token_ids):
            one = by_token[sample.id, sample.num_prompt_tokens + index]
            assert one["token_id"] == token_id
            assert Explanation(one).reproduce() == one["drawn_token_id"]


@pytest.mark.slow
def test_a_thousand_tokens_of_many_kinds_follow_from_their_facts(llm: LLM):
    _, facts = run_explained(llm, 52, max_tokens=40)
    assert len(facts) >= 1_000
    assert all(Explanation(one).reproduce() == one["drawn_token_id"] for one in facts)
    replaced = [one for one in facts if one["drawn_token_id"] != one["token_id"]]
    assert all(one["source"] == "grammar" for one in replaced)


def test_what_is_recomputed_is_what_was_recorded(
    llm: LLM, crowd: tuple[list[Request], list[Facts]]
):
    samples, facts = crowd
    rng = random.Random(2)
    requests = {sample.id: sample for sample in samples}
    kinds = {sample.id: rng.choice(range(sample.num_output_tokens)) for sample in samples}
    for one in facts:
        request = requests[one["request_id"]]
        if one["position"] != request.num_prompt_tokens + kinds[request.id]:
            continue
        recorded = llm.explain(request, token=kinds[request.id])
        assert (recorded.source, recorded.facts) == ("recorded", one)
        explanation = llm.explain(request, token=kinds[request.id], recompute=True)
        assert explanation.source == "recomputed"
        assert explanation.logit_difference is not None
        assert explanation.logit_difference < CLOSE
        assert explanation.step == one["step"]
        assert explanation.facts["batch"] == one["batch"]
        assert explanation.token_id == one["token_id"]
        assert explanation.reproduce() == one["drawn_token_id"]
        assert explanation.chosen_by == one["source"]
        assert explanation.key == Explanation(one).key
        assert explanation.num_kept == one["num_kept"]
        assert explanation.logit_raw == pytest.approx(one["logit_raw"], abs=CLOSE)
        assert explanation.probability == pytest.approx(Explanation(one).probability, abs=CLOSE)


def test_the_level_explain_records_everybody(llm: LLM):
    llm.engine.record.level = "explain"
    try:
        request = llm.engine.add("Hello", SamplingParams(seed=1, max_tokens=4, ignore_eos=True))
        llm.engine.run_until_idle()
    finally:
        llm.engine.record.level = "tokens"
    found = [llm.explain(request, token=index) for index in range(4)]
    assert [one.source for one in found] == ["recorded"] * 4
    rows = llm.engine.record.tokens
    rows = rows[rows["request_id"] == request.id]
    assert rows["rank_raw"].tolist() == [one.rank_raw for one in found]
    assert rows["entropy_nats"].tolist() == pytest.approx([one.entropy_nats for one in found])
    assert rows["logprob_raw"].tolist() == pytest.approx(
        [one.facts["logprob_raw"] for one in found]
    )


def test_facts_tell_the_step_the_batch_mates_and_the_blocks(llm: LLM):
    llm.reset_prefix_cache()
    llm.engine.sampler.explain_if(lambda request: True)
    params = SamplingParams(max_tokens=2, seed=1)
    first = llm.engine.add(SHARED, params)
    llm.engine.run_until_idle()
    second = llm.engine.add(SHARED, params)
    other = llm.engine.add("Hello", params)
    report = llm.engine.step()
    llm.engine.sampler.explain_if(None)
    table = llm.engine.cache.table(second.id)
    facts = {update.request_id: update.tokens[0].facts for update in report.updates}
    explanation = Explanation(facts[second.id] or {})
    llm.engine.run_until_idle()
    assert explanation.step == report.step
    assert explanation.batch_mates == [other.id]
    assert explanation.block_ids == table[: -(-second.num_prompt_tokens // 16)]
    assert explanation.num_cached_tokens == second.num_cached_tokens > 0
    assert len(explanation.reused_block_ids) == second.num_cached_tokens // 16
    assert first.num_cached_tokens == 0
    assert "blocks read" in repr(explanation)


def test_explaining_in_the_middle_of_a_run_disturbs_nothing(llm: LLM):
    def run(explain: bool) -> list[list[int]]:
        llm.reset_prefix_cache()
        requests = [
            llm.engine.add(f"{word} and more", SamplingParams(seed=7, max_tokens=12))
            for word in ("one", "two", "three")
        ]
        while llm.engine.scheduler.has_work:
            llm.engine.step()
            if explain and requests[1].num_output_tokens:
                used = llm.engine.cache.pool.num_used
                assert llm.explain(requests[1], token=-1).source == "recomputed"
                assert llm.engine.cache.pool.num_used == used
                llm.engine.scheduler.check()
        return [request.output_token_ids for request in requests]

    assert run(explain=True) == run(explain=False)


def test_a_running_engine_is_explained_between_its_steps(llm: LLM):
    params = SamplingParams(seed=3, max_tokens=200, ignore_eos=True)
    with llm.engine.driving():
        request = llm.engine.add("Count with me", params)
        while request.num_output_tokens == 0:
            time.sleep(0.001)
        explanation = llm.engine.sampler.explain(request.id, request.num_prompt_tokens)
        assert not request.is_finished
        llm.engine.abort(request)
    assert explanation.token_id == request.output_token_ids[0]
    assert explanation.source == "recomputed"
    assert len(explanation.block_ids) == 1


def test_a_request_says_which_sample_is_meant(llm: LLM):
    request = llm.engine.add("Hello", SamplingParams(n=2, seed=1, max_tokens=3, temperature=1.5))
    llm.engine.run_until_idle()
    first, second = request.samples
    assert llm.explain(request, token=0).request_id == first.id
    assert llm.explain(request, token=0, sample=1).request_id == second.id
    assert llm.explain(second, token=0).request_id == second.id
    assert llm.explain(second, token=0).facts["sample_index"] == 1
    last = llm.explain(request, token=-1)
    assert last.position == first.num_tokens - 1
    with pytest.raises(InvalidRequest, match="sample=2"):
        llm.explain(request, token=0, sample=2)


def test_the_parameters_of_that_step_are_taken(llm: LLM):
    request = llm.engine.add("Hello", SamplingParams(seed=3, max_tokens=9, ignore_eos=True))
    llm.engine.run_until(lambda report: request.num_output_tokens == 3)
    for temperature, until in ((3.0, 6), (0.0, 9)):
        params = replace(request.params, temperature=temperature)
        llm.engine.change(request, params=params)
        llm.engine.run_until(lambda report, until=until: request.num_output_tokens == until)
    for token in range(9):
        explanation = llm.explain(request, token)
        assert explanation.reproduced
        assert explanation.reproduce() == explanation.token_id
        assert explanation.is_greedy == (token >= 6)
        assert "parameters were changed" in explanation.notes[0]


def test_a_token_that_a_recomputation_does_not_give_is_said_to_be_that(llm: LLM):
    def reverse(x: torch.Tensor, at: Any) -> torch.Tensor:
        return -x

    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    (output,) = llm.generate("Hello", params, hooks=[Hook("logits", reverse)], progress=False)
    explanation = llm.explain(output, 0)
    assert not explanation.reproduced
    assert explanation.reproduce() != explanation.token_id
    assert "does not reproduce this token" in explanation.sentence
    assert "the request's hooks did not run" in explanation.sentence
    assert "grammar" not in str(explanation)


def test_a_request_that_was_taken_back_is_not_explained():
    with LLM(max_model_len=64, max_num_seqs=2) as llm:
        request = llm.engine.add("Hello", SamplingParams(max_tokens=2, ignore_eos=True))
        llm.engine.run_until_idle()
        step = llm.engine.scheduler.next_step
        gone = llm.engine.add("Hi", SamplingParams(max_tokens=2, ignore_eos=True))
        llm.engine.run_until_idle()
        llm.engine.rewind(step - 1)
        assert llm.engine.add("Ho", SamplingParams(max_tokens=2)).id == gone.id
        llm.engine.run_until_idle()
        with pytest.raises(InvalidRequest, match="went back to before"):
            llm.explain(gone, 0)
        assert llm.explain(request, 0).reproduced


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"token": 1.0}, "token is a whole number"),
        ({"token": None}, "token is a whole number"),
        ({"token": "0"}, "token is a whole number"),
        ({"token": 0, "sample": "0"}, "sample is a whole number"),
    ],
)
def test_places_that_are_no_numbers_are_refused(llm: LLM, arguments: dict[str, Any], says: str):
    request = llm.engine.add("Hello", SamplingParams(max_tokens=2))
    llm.engine.run_until_idle()
    with pytest.raises(InvalidRequest, match=says):
        llm.explain(request, **arguments)
    with pytest.raises(InvalidRequest, match="a request or its id, not NoneType"):
        llm.engine.sampler.explain(None, 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="position is a whole number"):
        llm.engine.sampler.explain(request.id, 1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("token", [3, -4])
def test_a_token_that_is_not_there_is_refused(llm: LLM, token: int):
    request = llm.engine.add("Hello", SamplingParams(max_tokens=3, ignore_eos=True, seed=1))
    llm.engine.run_until_idle()
    with pytest.raises(InvalidRequest, match="3 output tokens"):
        llm.explain(request, token=token)
    with pytest.raises(InvalidRequest, match="position 0 is not one of the output tokens"):
        llm.engine.sampler.explain(request, 0)


def test_what_is_no_request_or_was_not_drawn_is_refused(llm: LLM):
    beams = llm.engine.add("Hello", llm_beams())
    llm.engine.run_until_idle()
    with pytest.raises(InvalidRequest, match="beam search: no token is drawn"):
        llm.explain(beams, token=0)
    with pytest.raises(InvalidRequest, match="no request 'nobody'"):
        llm.explain("nobody", token=0)
    with pytest.raises(InvalidRequest, match="not int"):
        llm.explain(3, token=0)  # type: ignore[arg-type]


def llm_beams() -> Any:
    from toolkit import BeamSearchParams

    return BeamSearchParams(beam_width=2, max_tokens=3)


def test_beams_are_not_explained_at_any_level(llm: LLM):
    reports = []
    unsubscribe = llm.engine.on(StepFinished, lambda event: reports.append(event.report))
    llm.engine.sampler.explain_if(lambda request: True)
    llm.engine.add("Hello", llm_beams())
    llm.engine.run_until_idle()
    llm.engine.sampler.explain_if(None)
    unsubscribe()
    assert all(token.facts is None for r in reports for u in r.updates for token in u.tokens)


def test_in_bfloat16_the_chosen_token_and_its_key_are_the_same():
    with LLM(max_model_len=128, max_num_seqs=4, dtype="bfloat16") as half:
        request = half.engine.add("Hello, how", SamplingParams(seed=5, max_tokens=6))
        half.engine.run_until_idle()
        for index, token_id in enumerate(request.output_token_ids):
            explanation = half.explain(request, token=index)
            assert explanation.token_id == token_id
            assert explanation.rank_raw >= 1


def test_after_close_nothing_can_be_recomputed():
    with LLM(max_model_len=64, max_num_seqs=2) as closed:
        request = closed.engine.add("Hello", SamplingParams(max_tokens=2))
        closed.engine.run_until_idle()
    with pytest.raises(EngineClosed, match="not recorded"):
        closed.explain(request, token=0)


def test_an_answer_or_its_id_is_enough_after_the_request_ended(llm: LLM):
    params = SamplingParams(seed=1, max_tokens=5, n=2, temperature=1.2, ignore_eos=True)
    (output,) = llm.generate(["Hello"], params)
    for sample in output.outputs:
        found = llm.explain(output, token=3, sample=sample.index)
        assert found.source == "recomputed"
        assert found.token_id == found.reproduce() == sample.token_ids[3]
    position = len(output.prompt_token_ids) + 3
    by_id = llm.engine.sampler.explain(output.request_id, position)
    assert by_id.token_id == output.outputs[0].token_ids[3]
