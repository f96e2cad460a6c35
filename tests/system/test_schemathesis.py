"""What the server says of itself in /openapi.json holds for calls made from it at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.system.aftermath import require_at_rest
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
# How many calls of each kind, right ones and wrong ones.
WITH_BODIES = {
    "/v1/chat/completions": 250,
    "/v1/completions": 250,
    "/v1/embeddings": 200,
    "/tokenize": 200,
    "/detokenize": 200,
}
WITHOUT = ["/health", "/ping", "/metrics", "/load", "/version", "/v1/models", "/v1/models/{name}"]
SENT: Counter[str] = Counter()


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    # A short context: a call without a limit of its own runs to the context's end.
    with LLM(max_model_len=48, max_num_seqs=16, num_kv_blocks=128) as llm:
        yield llm


@pytest.fixture(scope="module")
def api(llm: LLM) -> Iterator[Any]:
    with serve(llm, port=0, served_model_name="*", max_n=2, max_choices=4) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def call_at_random(operation: Any, mode: GenerationMode, num_calls: int) -> None:
    """Send so many calls, and hold each answer against the description."""

    @settings(max_examples=num_calls, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Case) -> None:
        answer = case.call_and_validate(checks=CHECKS, timeout=60)
        SENT[case.operation.label] += 1
        assert answer.headers["x-request-id"]

    call()


@pytest.mark.parametrize(
    ("path", "mode"), list(product(WITH_BODIES, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)))
)
def test_calls_with_a_body(api: Any, path: str, mode: GenerationMode) -> None:
    call_at_random(api[path]["post"], mode, WITH_BODIES[path])


@pytest.mark.parametrize("path", WITHOUT)
def test_calls_without_a_body(api: Any, path: str) -> None:
    call_at_random(api[path]["get"], GenerationMode.POSITIVE, 50)


def test_all_of_the_description_was_called(api: Any) -> None:
    assert set(api) == {*WITH_BODIES, *WITHOUT}
    assert SENT.total() >= NUM_CASES, SENT


def test_afterwards_the_engine_is_clean(llm: LLM) -> None:
    require_at_rest(llm)
