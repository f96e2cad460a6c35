"""Why a call was slow, asked of the server: by its own names, and over HTTP."""

from __future__ import annotations

import httpx
import pytest

from toolkit.errors import UnknownRequest
from toolkit.llm import LLM
from toolkit.server import Server, serve

ASK = {"model": "tiny", "prompt": "Hello", "max_tokens": 3, "temperature": 0}


def test_a_call_is_found_by_its_answers_id_and_by_the_clients(
    server: Server, http: httpx.Client
) -> None:
    answer = http.post("/v1/completions", json=ASK, headers={"x-request-id": "mine-1"})
    by_answer, by_client = server.why(answer.json()["id"]), server.why("mine-1")
    assert by_answer.request_id == by_client.request_id
    assert "got its first token after" in by_answer.sentence


def test_an_unknown_call_is_an_error_that_says_what_there_is(server: Server) -> None:
    with pytest.raises(UnknownRequest, match="the latest"):
        server.why("chatcmpl-nobody")


def test_for_development_it_is_an_endpoint(llm: LLM) -> None:
    headers = {"x-request-id": "a b/c"}
    with (
        serve(llm, port=0, served_model_name="tiny", dev=True) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        http.post("/v1/completions", json=ASK, headers=headers).raise_for_status()
        answer = http.get("/engine/why/a%20b/c").json()
        assert answer["sentence"] == server.why("a b/c").sentence
        missing = http.get("/engine/why/nobody")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "unknown_request"


@pytest.mark.slow
def test_a_server_in_another_process_answers_alike() -> None:
    with serve(port=0, process=True, num_kv_blocks=64) as server:
        client = server.client()
        answer = client.completions.create(model=server.model_name, prompt="Hi", max_tokens=2)
        why = server.why(answer.id)
        assert "got its first token after" in why.sentence
        assert why.spans["num_tokens"].sum() >= 2
        with pytest.raises(UnknownRequest, match="nobody"):
            server.why("nobody")
