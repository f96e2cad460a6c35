"""Endpoints for development: hidden by default, and what they say and do where they are not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.dev import is_dev_path

PATHS = [
    ("POST", "/reset_prefix_cache"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("GET", "/is_paused"),
    ("GET", "/engine/state"),
    ("GET", "/engine/record"),
    ("GET", "/engine/record/steps"),
    ("GET", "/engine/ttft"),
    ("GET", "/engine/why/req-0"),
]


@pytest.fixture(scope="module")
def dev_server(llm: LLM) -> Iterator[Server]:
    with serve(llm, port=0, served_model_name="tiny", dev=True) as server:
        yield server


@pytest.fixture
def dev(dev_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=dev_server.url, timeout=30) as http:
        yield http


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_dev_they_are_not_there_and_the_error_says_how(
    http: httpx.Client, method: str, path: str
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 404
    assert "--dev" in answer.json()["error"]["message"]
    assert not [p for p in http.get("/openapi.json").json()["paths"] if is_dev_path(p)]


def test_a_key_guards_them_like_v1(llm: LLM) -> None:
    with serve(llm, port=0, dev=True, api_key="k") as server:
        assert httpx.get(f"{server.url}/is_paused").status_code == 401
        with server.address.http_client() as http:
            assert http.get("/is_paused").json() == {"is_paused": False}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("path", ["/pause", "/reset_prefix_cache", "/v1/responses/resp_1/cancel"])
def test_a_web_page_from_elsewhere_changes_nothing(
    dev: httpx.Client, llm: LLM, path: str, origin: str
) -> None:
    answer = dev.post(path, headers={"origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_not_allowed"
    assert not llm.engine.is_paused


def test_pages_of_the_server_and_allowed_ones_change_things(llm: LLM, dev: httpx.Client) -> None:
    own = str(dev.base_url).rstrip("/")
    assert dev.post("/resume", headers={"origin": own}).status_code == 200
    page = {"origin": "https://page.example"}
    for allowed in (page["origin"], "*"):
        with serve(llm, port=0, dev=True, allowed_origins=allowed) as server:
            assert httpx.post(f"{server.url}/resume", headers=page).status_code == 200


def test_a_paused_engine_answers_after_it_is_resumed(dev: httpx.Client, llm: LLM) -> None:
    assert dev.post("/pause").json() == {"is_paused": True}
    assert dev.post("/pause").json() == {"is_paused": True}  # once is enough, and one resume too
    try:
        ask = {"model": "tiny", "prompt": "Hello", "max_tokens": 400, "ignore_eos": True}
        body = {**ask, "stream": True}
        with dev.stream("POST", "/v1/completions", json=body) as answer:
            state = dev.get("/engine/state").json()
            assert state["is_paused"]
            assert len(state["waiting"]) + len(state["running"]) == 1
            assert dev.post("/resume").json() == {"is_paused": False}
            assert list(answer.iter_lines())[-2] == "data: [DONE]"
    finally:
        dev.post("/resume")
    assert not llm.engine.is_paused


def test_stopping_the_server_lets_a_paused_engine_go(llm: LLM) -> None:
    with serve(llm, port=0, dev=True) as server:
        httpx.post(f"{server.url}/pause")
        assert llm.engine.is_paused
    assert not llm.engine.is_paused


def test_the_state_is_that_of_scheduler_and_cache(dev: httpx.Client, llm: LLM) -> None:
    state = dev.get("/engine/state").json()
    assert state["policy"] == "fcfs"
    assert state["running"] == state["waiting"] == []
    assert state["scheduler"]["max_num_seqs"] == llm.engine.config.scheduler.max_num_seqs
    assert sum(state["blocks"].values()) == state["cache"]["num_blocks"]


def test_resetting_the_prefix_cache_forgets_what_it_held(dev: httpx.Client, llm: LLM) -> None:
    dev.post("/v1/completions", json={"prompt": list(range(64)), "max_tokens": 1})
    assert dev.post("/reset_prefix_cache").json()["num_evicted"] >= 3
    assert llm.engine.cache.pool.num_cached == 0


def test_tables_come_whole_or_by_their_tail_in_two_formats(dev: httpx.Client, llm: LLM) -> None:
    dev.post("/v1/completions", json={"prompt": [1, 2], "max_tokens": 3, "ignore_eos": True})
    assert dev.get("/engine/record").json()["tables"] == list(llm.engine.record.tables)
    whole = dev.get("/engine/record/tokens").json()
    frame = llm.engine.record.tokens
    assert whole["columns"] == list(frame.columns)
    assert whole["dtypes"] == [str(dtype) for dtype in frame.dtypes]
    assert [row[4] for row in whole["data"]] == list(frame["token_id"])
    lines = dev.get("/engine/record/tokens", params={"format": "jsonl", "tail": 2}).text
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["index"] for row in rows] == [1, 2]
    assert dev.get("/engine/record/tokens", params={"tail": 0}).json()["data"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/engine/record/none", 404),
        ("/engine/record/steps?format=xml", 400),
        ("/engine/record/steps?tail=-1", 400),
    ],
)
def test_a_wrong_question_is_an_error_in_openais_shape(
    dev: httpx.Client, path: str, status: int
) -> None:
    answer = dev.get(path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_table_is_followed_by_a_cursor(dev: httpx.Client, dev_server: Server) -> None:
    client = dev_server.client()
    client.completions.create(model="tiny", prompt="one", max_tokens=3)
    wanted = {"column": ["step", "start_s"]}
    first = dev.get("/engine/record/steps", params={"since": 0, **wanted}).json()
    assert first["columns"] == ["step", "start_s"]
    assert dev.get("/engine/record/steps", params={"since": first["cursor"]}).json()["data"] == []
    client.completions.create(model="tiny", prompt="two", max_tokens=3)
    more = dev.get("/engine/record/steps", params={"since": first["cursor"], **wanted}).json()
    steps = dev_server.engine.record.steps.step.tolist()
    assert [row[0] for row in first["data"] + more["data"]] == steps
    assert dev.get("/engine/record/blocks", params={"since": 0}).status_code == 400


def test_the_wait_for_the_first_token_is_told_by_request(dev: httpx.Client, llm: LLM) -> None:
    requests = llm.engine.record.requests
    requests = requests[requests.ttft_s.notna()]
    asked = [*requests.request_id, "req-of-nobody"]
    found = dev.get("/engine/ttft", params={"request_id": asked}).json()
    assert found == pytest.approx(dict(zip(requests.request_id, requests.ttft_s, strict=True)))
