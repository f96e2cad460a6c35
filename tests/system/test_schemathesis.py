"""What the server says of itself in /openapi.json holds for calls made from it at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.system.aftermath import require_at_rest
from tests.system.hostile import GOOD
from toolkit.llm import LLM
from toolkit.server import serve

pytestmark = pytest.mark.slow

NUM_CASES = 2000
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# How many calls of each kind: all as the description says, one thing not so, and a good body with
# a few fields beside, most of which are answered.
WITH_BODIES = {
    "/v1/chat/completions": 250,
    "/v1/completions": 250,
    "/v1/embeddings": 200,
    "/v1/responses": 200,
    "/tokenize": 200,
    "/detokenize": 200,
}
WITHOUT = [
    "get /health",
    "get /ping",
    "post /ping",
    "get /metrics",
    "get /load",
    "get /version",
    "get /v1/models",
    "get /v1/models/{name}",
    "get /v1/responses/{response_id}",
    "get /v1/responses/{response_id}/input_items",
    "post /v1/responses/{response_id}/cancel",
    "delete /v1/responses/{response_id}",
]
# Of so many calls that are as described, one at least is answered: half of what was seen when this
# was written, since every change of the description changes all draws. A chat has three dozen
# fields, whose random values nearly always contradict each other: the calls with a few fields look
# at it.
CALLS_PER_ANSWER = {
    "/v1/completions": 50,
    "/v1/embeddings": 20,
    "/v1/responses": 20,
    "/tokenize": 40,
    "/detokenize": 20,
}
SENT: Counter[int] = Counter()


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    # A short context: a call without a limit of its own runs to the context's end.
    with LLM(max_model_len=48, max_num_seqs=16, num_kv_blocks=128) as llm:
        yield llm


@pytest.fixture(scope="module")
def api(llm: LLM) -> Iterator[Any]:
    with serve(llm, port=0, served_model_name="*", max_n=2, max_choices=4) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def with_few_fields(case: Case, path: str, random: Random) -> Case:
    """A call with a good body and up to two fields of another one."""
    names = sorted(case.body) if isinstance(case.body, dict) else []
    fields = random.sample(names, min(len(names), 2))
    case.body = {**GOOD[path], **{name: case.body[name] for name in fields}}
    return case


def call_at_random(
    calls: SearchStrategy[Case], num_calls: int, *, unnamed: Counter[str] | None = None
) -> Counter[int]:
    """Send so many calls, and hold each answer against the description; return the statuses.

    ``unnamed`` counts the messages of refusals that name no field.
    """
    statuses: Counter[int] = Counter()

    @settings(max_examples=num_calls, suppress_health_check=list(HealthCheck))
    @given(case=calls)
    def call(case: Case) -> None:
        answer = case.call_and_validate(checks=CHECKS, timeout=60)
        statuses[answer.status_code] += 1
        assert answer.headers["x-request-id"]
        if unnamed is not None and answer.status_code == 400:
            error = answer.json()["error"]
            unnamed.update([error["message"]] if error["param"] is None else [])

    call()
    SENT.update(statuses)
    return statuses


@pytest.mark.parametrize("path", WITH_BODIES)
def test_calls_as_described(api: Any, path: str) -> None:
    calls = api[path]["post"].as_strategy(generation_mode=GenerationMode.POSITIVE)
    unnamed: Counter[str] = Counter()
    statuses = call_at_random(calls, WITH_BODIES[path], unnamed=unnamed)
    assert not unnamed, "what is refused though it is as described is refused by name"
    if path in CALLS_PER_ANSWER:
        assert statuses[200] >= WITH_BODIES[path] / CALLS_PER_ANSWER[path], statuses


@pytest.mark.parametrize("path", WITH_BODIES)
def test_calls_not_as_described(api: Any, path: str) -> None:
    calls = api[path]["post"].as_strategy(generation_mode=GenerationMode.NEGATIVE)
    statuses = call_at_random(calls, WITH_BODIES[path])
    assert statuses[400] > statuses[200]


@pytest.mark.parametrize("path", WITH_BODIES)
def test_good_calls_with_a_few_fields(api: Any, path: str) -> None:
    calls = api[path]["post"].as_strategy(generation_mode=GenerationMode.POSITIVE)
    randoms = strategies.randoms(use_true_random=False)
    few = strategies.builds(with_few_fields, calls, strategies.just(path), randoms)
    statuses = call_at_random(few, WITH_BODIES[path])
    assert statuses[200] > WITH_BODIES[path] / 5


@pytest.mark.parametrize("called", WITHOUT)
def test_calls_without_a_body(api: Any, called: str) -> None:
    method, path = called.split()
    call_at_random(api[path][method].as_strategy(), 50)


def test_all_of_the_description_was_called(api: Any) -> None:
    described = {f"{method} {path}" for path in api for method in api[path]}
    assert described == {*WITHOUT, *(f"post {path}" for path in WITH_BODIES)}
    assert SENT.total() >= NUM_CASES, SENT


def test_afterwards_the_engine_is_clean(llm: LLM) -> None:
    require_at_rest(llm)
