"""Structured output through a whole engine: with random weights, every finished answer fits."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.sampling.random_schemas import random_schema
from tests.server.tiny_model import write_tiny_model
from toolkit import LLM, SamplingParams
from toolkit.engine.events import Finished, Preempted, Waited
from toolkit.errors import InvalidParameter, InvalidRequest
from toolkit.request import RequestOutput

NUM_SCHEMAS = 200
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "label": {"type": "string"}},
    "required": ["x", "label"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), max_model_len=512, max_num_seqs=32) as llm:
        yield llm


def params(form: Any, seed: int = 0, max_tokens: int | None = None, **options: Any):
    options = {"temperature": 1.0 + seed % 3 / 2, **options}
    return SamplingParams(seed=seed, max_tokens=max_tokens, structured_outputs=form, **options)


def assert_clean(llm: LLM) -> None:
    llm.engine.scheduler.check()
    assert llm.engine.cache.pool.num_used == 0


def check_answer(output: RequestOutput, schema: Any, limit: int | None = None) -> None:
    assert output.error is None
    completion = output.outputs[0]
    if completion.finish_reason == "length":
        assert len(completion.token_ids) == limit
        return
    assert completion.finish_reason == "stop"
    value = json.loads(completion.text)
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("start", range(0, NUM_SCHEMAS, 50))
def test_every_finished_answer_to_a_random_schema_validates(llm: LLM, start: int):
    seeds = range(start, start + 50)
    schemas = [random_schema(seed) for seed in seeds]
    # Every fifth with a limit of its own, at which it may be cut.
    limits = [20 if seed % 5 == 4 else None for seed in seeds]
    asked = [
        params({"json": schema}, seed, limit)
        for seed, schema, limit in zip(seeds, schemas, limits, strict=True)
    ]
    outputs = llm.generate(["Hello world"] * len(schemas), asked, progress=False)
    for output, schema, limit in zip(outputs, schemas, limits, strict=True):
        check_answer(output, schema, limit)
    assert_clean(llm)


def test_a_streamed_answer_is_the_same_as_a_whole_one(llm: LLM):
    for seed in range(0, NUM_SCHEMAS, 20):
        asked = params({"json": random_schema(seed)}, seed)
        pieces = list(llm.stream("Hello world", asked))
        whole = llm.generate("Hello world", asked, progress=False)[0]
        assert "".join(piece.text for piece in pieces) == whole.text
        assert pieces[-1].finish_reason == "stop"
        check_answer(whole, random_schema(seed))


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"choice": ["yes", "no", "maybe so"]}, "yes|no|maybe so"),
    ({"regex": "[a-c]{2,5}-[0-9]+"}, "[a-c]{2,5}-[0-9]+"),
    ({"grammar": 'root ::= "a" root "b" | "-"'}, "a*-b*"),
    ({"grammar": 'start: "<" %json {"type": "string"} ">"'}, '<".*">'),
    ({"json_object": True}, r"\{.*\}"),
    ({"regex": ".*the end"}, ".*the end"),
]


@pytest.mark.parametrize(("form", "pattern"), FORMS)
def test_an_answer_without_a_limit_always_closes(llm: LLM, form: dict[str, Any], pattern: str):
    prompts = ["Hello", "Hello world", "stop and love"]
    outputs = llm.generate(prompts, [params(form, seed) for seed in range(3)], progress=False)
    for output in outputs:
        assert output.error is None
        assert output.outputs[0].finish_reason == "stop"
        assert re.fullmatch(pattern, output.text, re.DOTALL), output.text
    assert_clean(llm)


def test_an_endless_string_is_closed_when_the_context_runs_out(llm: LLM):
    schema = {
        "type": "array",
        "items": {"type": "string", "pattern": '^[^"\\\\]*z$'},
        "minItems": 2,
    }
    output = llm.generate("Hello", params({"json": schema}, logit_bias={}), progress=False)[0]
    check_answer(output, schema)


def test_an_answer_is_cut_by_its_own_limit_and_says_so(llm: LLM):
    form = {"json": {"type": "string", "minLength": 40}}
    completion = llm.generate("Hello", params(form, max_tokens=8), progress=False)[0].outputs[0]
    assert completion.finish_reason == "length"
    assert len(completion.token_ids) == 8


def test_a_greedy_answer_ends_though_the_model_repeats_itself(llm: LLM):
    for schema in (POINT, {"type": "number"}, {"type": "array"}, {}):
        output = llm.generate("Hello", params({"json": schema}, temperature=0), progress=False)[0]
        check_answer(output, schema)


def test_the_bundled_model_answers_in_form():
    """Its vocabulary fills the last word of a mask."""
    with LLM(max_model_len=512) as llm:
        assert llm.engine.sampler.vocab_size % 32 == 0
        asked = [params({"json": POINT}, seed) for seed in range(4)]
        for output in llm.generate(["Where is it?"] * 4, asked, progress=False):
            check_answer(output, POINT)


def test_chat_takes_openais_response_format(llm: LLM):
    messages = [{"role": "user", "content": "Where?"}]
    form = {"type": "json_schema", "json_schema": {"name": "point", "schema": POINT}}
    output = llm.chat(messages, response_format=form)[0]
    check_answer(output, POINT)
    assert llm.chat(messages, params(None, max_tokens=3), response_format={"type": "text"})
    with pytest.raises(InvalidRequest, match="response_format"):
        llm.chat(messages, response_format={"type": "xml"})
    with pytest.raises(InvalidRequest, match="not both"):
        llm.chat(messages, params({"json": POINT}), response_format=form)


@pytest.mark.parametrize("form", [{"regex": "(?=a)"}, {"json": {"not": {}}}, {"json": False}])
def test_a_form_that_cannot_be_enforced_is_refused_before_it_is_queued(llm: LLM, form: Any):
    with pytest.raises(InvalidParameter) as caught:
        llm.engine.add("Hello", params(form))
    assert caught.value.param == "structured_outputs"
    assert not llm.engine.scheduler.has_work


def test_an_engine_without_a_tokenizer_refuses_forms(folder: Path):
    with (
        LLM(str(folder), tokenizer=False, max_model_len=64) as llm,
        pytest.raises(InvalidParameter, match="no tokenizer"),
    ):
        llm.generate([[1, 2]], params({"json_object": True}), progress=False)


# ---- beside other parameters


def test_samples_of_one_request_follow_the_grammar_each_for_itself(llm: LLM):
    output = llm.generate("Hello", params({"json": POINT}, n=4), progress=False)[0]
    assert len({sample.text for sample in output.outputs}) == 4
    for sample in output.outputs:
        jsonschema.validate(json.loads(sample.text), POINT)


def test_minimum_tokens_hold_the_end_back_only_where_the_grammar_goes_on(llm: LLM):
    asked = [
        params({"regex": "[0-9]+"}, seed, 30, min_tokens=10, temperature=0.5) for seed in range(5)
    ]
    for output in llm.generate(["Hello"] * 5, asked, progress=False):
        assert len(output.outputs[0].text) >= 10
    complete = llm.generate("Hello", params({"choice": ["a"]}, 0, 30, min_tokens=10))[0]
    assert (complete.text, complete.outputs[0].finish_reason) == ("a", "stop")


def test_ignoring_the_end_of_sequence_goes_on_while_the_grammar_does(llm: LLM):
    output = llm.generate("Hello", params({"regex": "[0-9]+"}, 0, 25, ignore_eos=True))[0]
    assert re.fullmatch("[0-9]+", output.text)
    assert len(output.outputs[0].token_ids) == 25


def test_stop_strings_penalties_and_logprobs_go_together_with_a_grammar(llm: LLM):
    asked = params({"regex": "[ab]{30}c"}, 3, 40, stop="ab", logprobs=2, repetition_penalty=1.3)
    completion = llm.generate("Hello", asked)[0].outputs[0]
    assert completion.finish_reason == "stop"
    assert completion.stop_reason == "ab"
    assert completion.logprobs is not None
    for token_id, entry in zip(completion.token_ids, completion.logprobs, strict=True):
        assert entry[token_id].logprob_processed > float("-inf")


def test_parameters_that_leave_a_grammar_no_token_fail_their_request_alone(llm: LLM):
    only_a = llm.tokenizer.encode("a")
    broken = params({"choice": ["b"]}, 0, 5, allowed_token_ids=only_a)
    outputs = llm.generate(["Hello"] * 2, [broken, params({"choice": ["b"]})], progress=False)
    assert "no token is left" in str(outputs[0].error)
    assert outputs[1].text == "b"
    assert_clean(llm)


def test_a_processor_that_breaks_the_grammar_fails_its_request_alone(llm: LLM):
    def insist(logits: Any, at: Any) -> Any:
        logits[llm.tokenizer.encode("a")[0]] = 1e9
        return logits

    broken = params({"choice": ["b"]}, 0, 5, logits_processors=[insist])
    outputs = llm.generate(["Hello"] * 2, [broken, params({"choice": ["b"]})], progress=False)
    assert "does not fit the form" in str(outputs[0].error)
    assert outputs[1].text == "b"


# ---- the request's own


def test_what_is_sampled_depends_neither_on_company_nor_on_preemption(folder: Path):
    """Some with grammars and some without, alone, together, in a pool too small for all."""
    forms = [None, {"json": POINT}, {"json_object": True}, {"regex": "[a-d]{40}"}] * 3
    asked = [params(form, seed, 40) for seed, form in enumerate(forms)]
    prompts = ["Hello world and love", "Hello world and stop"] * 6

    def run(places: list[int], **settings: Any) -> dict[int, tuple[int, ...]]:
        with LLM(str(folder), max_model_len=128, block_size=4, **settings) as llm:
            preempted: list[Preempted] = []
            llm.engine.on(Preempted, preempted.append)
            outputs = llm.generate(
                [prompts[place] for place in places],
                [asked[place] for place in places],
                progress=False,
            )
            assert bool(preempted) == ("num_kv_blocks" in settings)
            assert_clean(llm)
        tokens = [output.outputs[0].token_ids for output in outputs]
        return dict(zip(places, tokens, strict=True))

    together = run([*range(12)])
    assert run([*range(11, -1, -1)], num_kv_blocks=40) == together
    for place in (0, 1, 2, 3):
        assert run([place])[place] == together[place]


def test_a_request_waits_for_its_grammar_and_others_overtake_it(folder: Path):
    """The vocabulary is read for the first grammar; until then nobody else is held up."""
    with LLM(str(folder), max_model_len=128) as llm:
        waited: list[Waited] = []
        finished: list[Finished] = []
        llm.engine.on(Waited, waited.append)
        llm.engine.on(Finished, finished.append)
        first = llm.engine.add("Hello", params({"choice": ["yes"]}))
        second = llm.engine.add("Hello", params(None, max_tokens=1))
        llm.engine.run_until_idle()
        assert first.output.text == "yes"
        assert second.is_finished
        causes = {event.cause for event in waited if event.request_id == first.id}
        assert causes <= {"grammar"}
        requests = llm.engine.record.requests.set_index("request_id")
        row = requests.loc[first.id]
        parts_s = row.filter(regex="^(wait_.*|tokenize|prefill|emit)_s$").sum()
        assert parts_s == pytest.approx(row.ttft_s, abs=1e-6)
        if causes:  # the grammar was not ready before the first step
            assert row.wait_grammar_s > 0
            assert requests.loc[second.id].finished_s < row.first_scheduled_s


def test_closing_ends_the_threads_of_the_grammars(folder: Path):
    def threads() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if "toolkit-grammar" in one.name}

    before = threads()
    with LLM(str(folder), max_model_len=128) as llm:
        llm.generate("Hello", params({"regex": "[ab]{9}"}), progress=False)
        assert len(threads()) > len(before)
    assert threads() == before
