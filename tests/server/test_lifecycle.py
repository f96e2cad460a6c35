"""serve() and the Server that it returns: start, names, keys, clients, stop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.llm import LLM
from toolkit.server import Server, serve

MESSAGES = [{"role": "user", "content": "Hello"}]
LONG = {"model": "tiny", "messages": MESSAGES, "stream": True, "extra_body": {"ignore_eos": True}}


def test_a_server_answers_on_localhost_too(server: Server) -> None:
    url = f"http://localhost:{server.port}/v1"
    with openai.OpenAI(base_url=url, api_key="EMPTY") as client:
        assert [model.id for model in client.models.list()] == ["tiny", "mosaicml/mpt-7b"]
    assert httpx.get(f"http://localhost:{server.port}/health").json() == {"status": "ok"}


def test_models_are_listed_and_described(client: openai.OpenAI, llm: LLM) -> None:
    (model, _) = client.models.list()
    assert model.object == "model"
    assert client.models.retrieve("mosaicml/mpt-7b").id == "mosaicml/mpt-7b"
    extra = model.model_extra
    assert extra is not None
    assert (extra["max_model_len"], extra["root"]) == (llm.max_model_len, llm.model_name)


def test_the_answer_is_under_the_name_that_was_asked_for(client: openai.OpenAI) -> None:
    for name in ("tiny", "mosaicml/mpt-7b"):
        answer = client.chat.completions.create(model=name, messages=MESSAGES, max_tokens=1)
        assert answer.model == name


def test_version_and_documentation_are_served(http: httpx.Client) -> None:
    assert http.get("/version").json()["version"]
    assert http.get("/docs").status_code == 200
    assert "/v1/chat/completions" in http.get("/openapi.json").json()["paths"]


def test_without_names_the_model_has_its_own_and_a_star_takes_any(llm: LLM) -> None:
    with serve(llm, port=0) as server:
        assert server.model_name == llm.model_name
    with serve(llm, port=0, served_model_name="*") as server, server.client() as client:
        answer = client.completions.create(model="gpt-9", prompt="a", max_tokens=1)
        assert answer.model == "gpt-9"
        assert [model.id for model in client.models.list()] == [llm.model_name]


def test_a_key_is_needed_under_v1_if_the_server_has_one(llm: LLM) -> None:
    with serve(llm, port=0, api_key="secret") as server:
        with server.client() as client:
            assert client.models.list().data
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answer = httpx.get(f"{server.url}/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["x-request-id"]
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert "secret" not in f"{server!r} {server._repr_html_()} {server.logs}"


def test_a_taken_port_is_named(server: Server, llm: LLM) -> None:
    with pytest.raises(ToolkitError, match=f"127.0.0.1:{server.port} is taken"):
        serve(llm, port=server.port)


@pytest.mark.parametrize("settings", [{"port": 70_000}, {"host": "no.such.host.invalid"}])
def test_an_impossible_address_is_refused(llm: LLM, settings: dict) -> None:
    with pytest.raises(InvalidConfig):
        serve(llm, **settings)


def test_settings_of_an_llm_that_exists_already_are_refused(llm: LLM) -> None:
    with pytest.raises(InvalidConfig, match="max_model_len"):
        serve(llm, port=0, max_model_len=16)


def test_stop_frees_the_port_and_leaves_the_llm_alone(llm: LLM) -> None:
    server = serve(llm, port=0)
    assert "running" in repr(server)
    server.stop()
    server.stop()
    assert "stopped" in repr(server)
    assert not any(
        thread.name == "toolkit-http" and not thread.is_alive() for thread in threading.enumerate()
    )
    with socket.create_server(("127.0.0.1", server.port)):
        pass
    with serve(llm, port=server.port) as again:
        assert again.client(max_retries=0).models.list().data
    assert llm.generate("Hello", llm.sampling_params(max_tokens=1))


def test_an_llm_that_serve_made_is_closed_with_the_server(model_folder: Path) -> None:
    with serve(model_folder, port=0, max_model_len=64, num_kv_blocks=8) as server:
        assert server.llm.max_model_len == 64
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["max_model_len"] == 64
    with pytest.raises(ToolkitError, match="closed"):
        server.llm.generate("Hello")


def test_a_failed_start_gives_the_port_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(ToolkitError):
        serve(tmp_path / "no-model", port=port)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_stop_lets_running_answers_end(llm: LLM) -> None:
    server = serve(llm, port=0, served_model_name="tiny")
    with server.client() as client:
        stream = client.chat.completions.create(**LONG, max_tokens=40)
        next(stream)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        *_, last = stream
    stopping.join()
    assert last.choices[0].finish_reason == "length"


def test_stop_aborts_what_outlasts_its_grace(llm: LLM) -> None:
    server = serve(llm, port=0, served_model_name="tiny")
    with server.client(max_retries=0) as client:
        stream = client.chat.completions.create(**LONG)
        next(stream)
        start_s = time.monotonic()
        server.stop(grace_s=0.0)
        assert time.monotonic() - start_s < 2
        with pytest.raises(openai.APIError, match="aborted"):
            list(stream)
    assert llm.engine.snapshot().running == ()


def test_serving_works_while_this_threads_event_loop_runs(llm: LLM) -> None:
    async def cell() -> list[str | None]:
        with serve(llm, port=0, served_model_name="tiny") as server:
            async with server.async_client() as client:
                create = client.chat.completions.create
                answers = [
                    create(model="tiny", messages=MESSAGES, max_tokens=4, seed=seed)
                    for seed in range(3)
                ]
                return [
                    answer.choices[0].message.content for answer in await asyncio.gather(*answers)
                ]

    assert len(set(asyncio.run(cell()))) == 3


def test_the_engine_goes_on_between_calls_of_generate(server: Server, llm: LLM) -> None:
    llm.generate("Hello", llm.sampling_params(max_tokens=1))
    assert llm.engine.is_running
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_the_log_holds_a_line_per_call_and_nothing_is_printed(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = httpx.get(f"{server.url}/v1/models", headers={"x-request-id": "mine"})
    assert answer.status_code == 200
    assert "GET /v1/models 200" in server.logs[-1]
    assert server.logs[-1].endswith("'mine'")
    assert len(server.logs) <= 1000
    assert capfd.readouterr() == ("", "")
