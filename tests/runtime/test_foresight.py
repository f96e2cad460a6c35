"""An engine that begins the next step early gives the tokens of one that waits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.checkpoints import FAMILIES, VOCAB_SIZE, write_checkpoint
from tests.runtime.pairs import engine_like
from toolkit import LLM, SamplingParams
from toolkit.engine import Engine
from toolkit.request import Request
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


def play(llm: LLM, world: dict[str, Any], *, asynchronous: bool) -> tuple[Engine, list[Request]]:
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
    requests: list[Request] = []
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
        engine.step()
    assert not engine.scheduler.has_work, "requests are left that never end"
    return engine, requests


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
def test_an_engine_that_looks_ahead_gives_the_same_tokens(tiny: LLM, world: dict[str, Any]):
    patient, expected = play(tiny, world, asynchronous=False)
    eager, found = play(tiny, world, asynchronous=True)
    assert outcome(found) == outcome(expected)
    for engine in (patient, eager):
        engine.cache.check()
        assert engine.cache.pool.num_used == 0
