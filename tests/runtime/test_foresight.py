"""An engine that begins the next step early gives the tokens of one that waits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.checkpoints import FAMILIES, VOCAB_SIZE, write_checkpoint
from tests.runtime.pairs import engine_like
from toolkit import LLM, BeamSearchParams, SamplingParams
from toolkit.engine import Engine
from toolkit.engine.events import Preempted, TokenSampled
from toolkit.engine.plan import StepPlan
from toolkit.request import PoolingParams, Request
from toolkit.runtime import ModelRunner
from toolkit.runtime.cuda_graphs import EagerReplay

MAX_STEPS = 2_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), FAMILIES["llama"])
    with LLM(str(folder), dtype="float32", tokenizer=False, kernels="reference") as llm:
        yield llm


@pytest.fixture(scope="module")
def demo() -> Iterator[LLM]:
    with LLM(max_model_len=96, max_num_seqs=8) as llm:
        yield llm


def runner_of(engine: Engine) -> ModelRunner:
    assert isinstance(engine.runner, ModelRunner)
    return engine.runner


# ---- random worlds

_PLAIN: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 30},
    {"temperature": 1.2, "min_p": 0.02, "min_tokens": 3, "logit_bias": {5: 2.0}},
    {"temperature": 1.0, "bad_words": [[3], [4]], "allowed_token_ids": list(range(40))},
]
_LOOKED_AT: list[dict[str, Any]] = [
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 0.9, "logprobs": 2},
    {"temperature": 1.0, "bad_words": [[3, 4]]},
    {"temperature": 0.7, "prompt_logprobs": 1},
    {"temperature": 1.0, "logits_processors": [lambda logits, at: logits + at.position % 3]},
]
_ARRIVALS = st.fixed_dictionaries(
    {
        "step": st.sampled_from([0, 0, 0, 1, 2, 5, 9]),
        "length": st.integers(1, 40),
        "shared": st.sampled_from([0, 0, 9, 16]),
        "max_tokens": st.sampled_from([1, 2, 3, 8, 14, 20]),
        "n": st.sampled_from([1, 1, 1, 2]),
        "stop": st.booleans(),
        "kind": st.sampled_from([*_PLAIN, *_PLAIN, *_LOOKED_AT]),
        "aborted_after": st.sampled_from([None] * 5 + [1, 3, 6]),
        "changed_after": st.sampled_from([None] * 5 + [2, 4]),
    }
)
_WORLDS = st.fixed_dictionaries(
    {
        "arrivals": st.lists(_ARRIVALS, min_size=2, max_size=6),
        "num_blocks": st.sampled_from([16, 16, 20, 60]),
        "max_num_seqs": st.sampled_from([2, 4, 8]),
        "max_num_batched_tokens": st.sampled_from([5, 16, 64]),
        "captures": st.booleans(),
        "reset_at": st.sampled_from([None, None, 4]),
    }
)


@dataclass
class Played:
    """What became of a world."""

    engine: Engine
    requests: list[Request] = field(default_factory=list)
    plans: list[StepPlan] = field(default_factory=list)

    @property
    def order(self) -> list[Any]:
        """What each step computed, and whom it let in and sent away."""
        return [
            (
                [
                    (chunk.request_id, chunk.start, chunk.end, chunk.samples)
                    for chunk in plan.chunks
                ],
                plan.admitted_ids,
                plan.preempted_ids,
                plan.limited_by,
            )
            for plan in self.plans
        ]

    @property
    def costs(self) -> list[Any]:
        """What each answer cost, and how much of the cache lost its content."""
        return [
            [
                (r.num_cached_tokens, r.num_preemptions)
                for one in self.requests
                for r in one.samples
            ],
            self.engine.cache.pool.num_evicted,
        ]


def play(llm: LLM, world: dict[str, Any], *, asynchronous: bool) -> Played:
    """Run a world to its end, the same acts before the same steps."""
    engine = engine_like(
        llm,
        asynchronous=asynchronous,
        capture=EagerReplay if asynchronous and world["captures"] else None,
        block_size=4,
        max_model_len=64,
        **{name: world[name] for name in ("num_blocks", "max_num_seqs", "max_num_batched_tokens")},
    )
    rng = random.Random(3)
    tape = [rng.randrange(VOCAB_SIZE) for _ in range(80)]
    played = Played(engine)
    requests = played.requests
    arrivals = sorted(enumerate(world["arrivals"]), key=lambda pair: pair[1]["step"])
    for step in range(MAX_STEPS):
        for index, arrival in arrivals:
            if arrival["step"] == step:
                requests.append(_add(engine, index, arrival, tape))
            for after, act in (("aborted_after", engine.abort), ("changed_after", _cool)):
                if arrival[after] is not None and step == arrival["step"] + arrival[after]:
                    request = next(r for r in requests if r.tags["index"] == index)
                    if not request.is_finished:
                        act(request) if after == "aborted_after" else act(engine, request)
        if step == world["reset_at"]:
            engine.reset_prefix_cache()
        if step > arrivals[-1][1]["step"] and not engine.scheduler.has_work:
            break
        played.plans.append(engine.step().plan)
    assert not engine.scheduler.has_work, "requests are left that never end"
    return played


def _add(engine: Engine, index: int, arrival: dict[str, Any], tape: list[int]) -> Request:
    prompt = tape[: arrival["shared"]] + tape[index : index + arrival["length"]]
    kind = dict(arrival["kind"])
    if "min_tokens" in kind:
        kind["min_tokens"] = min(kind["min_tokens"], arrival["max_tokens"])
    params = SamplingParams(
        max_tokens=arrival["max_tokens"],
        n=arrival["n"] if kind["temperature"] else 1,
        seed=index,
        stop_token_ids=list(range(0, VOCAB_SIZE, 9)) if arrival["stop"] else [],
        **kind,
    )
    return engine.add(prompt[:50], params, tags={"index": index})


def _cool(engine: Engine, request: Request) -> None:
    """Change how a request samples, in the middle of its output."""
    engine.change(request, params=replace(request.params, temperature=0.3))


def outcome(requests: list[Request]) -> list[Any]:
    return [
        (r.id, list(r.token_ids), str(r.finish_reason), r.stop_reason, r.logprobs is None)
        for request in requests
        for r in request.samples
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=_WORLDS)
def test_an_engine_that_looks_ahead_gives_the_same_tokens_in_the_same_steps(
    tiny: LLM, world: dict[str, Any]
):
    patient = play(tiny, world, asynchronous=False)
    eager = play(tiny, world, asynchronous=True)
    assert outcome(eager.requests) == outcome(patient.requests)
    assert eager.order == patient.order
    assert eager.costs == patient.costs
    for played in (patient, eager):
        played.engine.cache.check()
        assert played.engine.cache.pool.num_used == 0


# ---- what is begun early, and what becomes of it

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def run(engine: Engine) -> list[Any]:
    """Step until nobody is left; return the reports."""
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
    return reports


def test_nearly_all_output_tokens_come_from_steps_that_were_begun_early(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    for index in range(4):
        engine.add([index + 1] * 9, GREEDY)
    run(engine)
    ahead = runner_of(engine).ahead
    # Of twelve tokens the prompt gives the first; each of the others is foreseen by the one before.
    assert (ahead.num_begun, ahead.num_used) == (44, 44)


def test_the_steps_are_those_of_an_engine_that_waits(tiny: LLM):
    seen = []
    for asynchronous in (False, True):
        engine = engine_like(tiny, asynchronous=asynchronous, max_num_batched_tokens=24)
        for index in range(5):
            engine.add([index + 1] * (7 + 10 * index), replace(GREEDY, max_tokens=3 + index))
        reports = run(engine)
        seen.append(
            [
                [(c.request_id, c.start, c.end, c.token_ids) for c in report.plan.chunks]
                for report in reports
            ]
        )
    assert seen[0] == seen[1]


def test_a_long_prompt_is_foreseen_chunk_by_chunk(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True, max_num_batched_tokens=8)
    engine.add(list(range(1, 41)), replace(GREEDY, max_tokens=2))
    run(engine)
    ahead = runner_of(engine).ahead
    assert (ahead.num_begun, ahead.num_used) == (5, 5)  # four more chunks, and the second token


def test_what_follows_a_stop_token_was_begun_in_vain(tiny: LLM):
    reference = engine_like(tiny, asynchronous=False)
    expected = reference.add([5, 6, 7], GREEDY)
    run(reference)
    stop = expected.token_ids[3 + 4]
    first = expected.output_token_ids.index(stop)
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([5, 6, 7], replace(GREEDY, stop_token_ids=[stop]))
    events: list[TokenSampled] = []
    engine.on(TokenSampled, events.append)
    run(engine)
    assert request.output_token_ids == expected.output_token_ids[: first + 1]
    assert [event.token_id for event in events] == request.output_token_ids
    ahead = runner_of(engine).ahead
    assert ahead.num_begun == ahead.num_used + 1
    assert engine.cache.pool.num_used == 0
    # Nothing of it is left behind: the next one is computed as if it had never been.
    again = engine.add([5, 6, 7], GREEDY)
    run(engine)
    assert again.output_token_ids == expected.output_token_ids


def test_one_request_that_is_looked_at_holds_nobody_up(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    engine.add([1, 2, 3], GREEDY)
    engine.add([4, 5, 6], replace(GREEDY, logprobs=1, max_tokens=4))
    reports = run(engine)
    ahead = runner_of(engine).ahead
    assert len(reports) == 12
    assert 0 < ahead.num_begun == ahead.num_used < 11  # once the other one has ended


def test_a_request_that_joins_shares_the_step_with_what_was_begun(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    engine.add([1, 2, 3], GREEDY)
    engine.step()
    engine.add([7, 8, 9, 10], GREEDY)
    report = engine.step()
    assert [chunk.num_tokens for chunk in report.plan.chunks] == [1, 4]
    assert [len(update.token_ids) for update in report.updates] == [1, 1]
    assert runner_of(engine).ahead.num_used == 1


def test_activations_are_shown_of_tokens_that_were_begun_early_too(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    early = engine.add([1, 2, 3], GREEDY)
    engine.step()
    engine.step()
    with engine.hooks.capture("layers.0.resid_post") as capture:
        late = engine.add([4, 5, 6], replace(GREEDY, max_tokens=3))
        run(engine)
    assert capture[late.id]["layers.0.resid_post"].shape[0] == 5
    patient = engine_like(tiny, asynchronous=False)
    alone = patient.add([1, 2, 3], GREEDY)
    run(patient)
    assert early.output_token_ids == alone.output_token_ids


def test_explanations_can_be_asked_for_at_any_step(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([1, 2, 3], GREEDY)
    engine.step()
    engine.step()
    engine.record.level = "explain"
    engine.step()
    assert engine.record.tokens.entropy_nats.notna().tolist() == [False, False, True]
    engine.record.level = "tokens"
    run(engine)
    assert request.num_output_tokens == 12


def test_the_past_can_be_gone_back_to_while_something_is_in_flight(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True, num_blocks=40, block_size=4, max_model_len=64)
    requests = [
        engine.add([index + 1] * 7, replace(GREEDY, temperature=1.0, seed=index, max_tokens=9))
        for index in range(3)
    ]
    for _ in range(6):
        engine.step()
    assert runner_of(engine).ahead.is_flying
    engine.rewind(3)
    assert [request.num_output_tokens for request in requests] == [3, 3, 3]
    run(engine)
    patient = engine_like(tiny, asynchronous=False, num_blocks=40, block_size=4, max_model_len=64)
    expected = [
        patient.add([index + 1] * 7, replace(GREEDY, temperature=1.0, seed=index, max_tokens=9))
        for index in range(3)
    ]
    run(patient)
    assert outcome(requests) == outcome(expected)


def test_preemption_drops_what_is_in_flight(tiny: LLM):
    seen = []
    for asynchronous in (False, True):
        engine = engine_like(
            tiny, asynchronous=asynchronous, num_blocks=12, block_size=4, max_model_len=40
        )
        preempted: list[Preempted] = []
        engine.on(Preempted, preempted.append)
        requests = [
            engine.add([7] * 9 + [index], SamplingParams(seed=index, max_tokens=25, n=2))
            for index in range(3)
        ]
        run(engine)
        assert preempted
        seen.append(outcome(requests))
    assert seen[0] == seen[1]
    ahead = runner_of(engine).ahead
    assert 0 < ahead.num_used <= ahead.num_begun


def test_grammars_and_stop_strings_come_out_as_they_do_without(demo: LLM):
    answers = []
    for asynchronous in (False, True):
        engine = engine_like(demo, asynchronous=asynchronous, capture=EagerReplay)
        requests = [
            engine.add("Once upon a time", SamplingParams(temperature=1.0, seed=1, max_tokens=30)),
            engine.add(
                "The answer is", SamplingParams(temperature=0, max_tokens=30, stop=["e", "a"])
            ),
            engine.add(
                "Give me JSON:",
                SamplingParams(
                    temperature=0.8,
                    seed=4,
                    max_tokens=12,
                    structured_outputs={"choice": ["alpha", "beta", "gamma"]},
                ),
            ),
        ]
        run(engine)
        texts = [request.text.text for request in requests if request.text is not None]
        answers.append((texts, outcome(requests)))
    assert answers[0] == answers[1]
    assert requests[1].stop_reason in ("e", "a")


def test_what_was_begun_for_a_step_that_broke_is_used_by_nobody(
    tiny: LLM, monkeypatch: pytest.MonkeyPatch
):
    engine = engine_like(tiny, asynchronous=True)
    request = engine.add([1, 2, 3], GREEDY)
    engine.step()
    runner = runner_of(engine)
    with monkeypatch.context() as patch:
        patch.setattr(runner.storage, "copy_blocks", _breaks)
        engine.step()
    assert isinstance(request.error, RuntimeError)
    again = engine.add([1, 2, 3], GREEDY)
    run(engine)
    patient = engine_like(tiny, asynchronous=False)
    alone = patient.add([1, 2, 3], GREEDY)
    run(patient)
    assert again.output_token_ids == alone.output_token_ids
    assert runner.ahead.num_begun == runner.ahead.num_used + 1


def _breaks(*_: Any) -> None:
    raise RuntimeError("the device is gone")


def test_embeddings_and_beams_beside_what_was_begun_are_as_they_are_alone(tiny: LLM):
    found = []
    for asynchronous in (False, True):
        engine = engine_like(tiny, asynchronous=asynchronous)
        plain = [engine.add([index + 1] * 5, GREEDY) for index in range(2)]
        for _ in range(3):
            engine.step()
        pooled = engine.add([7] * 9, PoolingParams(pooling="mean"))
        beams = engine.add([8] * 6, BeamSearchParams(beam_width=2, max_tokens=4))
        run(engine)
        vector = pooled.embedding_output.outputs.embedding
        found.append((outcome([*plain, beams]), [round(number, 5) for number in vector]))
        assert (runner_of(engine).ahead.num_used > 6) == asynchronous
    assert found[0] == found[1]
