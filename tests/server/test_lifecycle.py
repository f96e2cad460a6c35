"""serve() and the Server that it returns: start, names, keys, clients, stop."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE

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


# ---- keys


def test_any_of_several_keys_opens_v1_and_probes_need_none(llm: LLM) -> None:
    with serve(llm, port=0, api_key=["first", "zweiter-schlüssel"]) as server:
        for key in ("first", "zweiter-schlüssel"):
            headers = {b"authorization": f"Bearer {key}".encode()}
            assert httpx.get(f"{server.base_url}/models", headers=headers).status_code == 200
        for key in ("x", "firs", "first2", "second"):
            headers = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{server.base_url}/models", headers=headers).status_code == 401
        for path in ("/health", "/ping", "/version"):
            assert httpx.get(f"{server.url}{path}").status_code == 200
        assert httpx.post(f"{server.url}/ping").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/load"),
        ("POST", "/v1/responses"),
        ("GET", "/nothing"),
    ],
)
def test_all_but_probes_and_the_description_need_a_key(llm: LLM, method: str, path: str) -> None:
    with serve(llm, port=0, api_key="k") as server:
        assert httpx.request(method, f"{server.url}{path}").status_code == 401
        with server.address.http_client() as http:
            assert http.request(method, path).status_code != 401
        for open_path in ("/metrics", "/docs", "/openapi.json"):
            assert httpx.get(f"{server.url}{open_path}").status_code == 200


def test_what_a_client_sends_reaches_no_terminal_unescaped(llm: LLM) -> None:
    with serve(llm, port=0) as server:
        httpx.get(f"{server.url}/%1b[31mRED%1b]0;t%07%0aFAKE%c2%9b2J%e2%80%aex")
        (line,) = [each for each in server.logs if "RED" in each]
    assert line.isprintable()
    assert "\\x1b[31mRED\\x1b]0;t\\x07FAKE\\x9b2J\\u202ex" in line


@pytest.mark.parametrize("key", ["", ["a", ""], [1]])
def test_an_empty_key_is_refused(llm: LLM, key: object) -> None:
    with pytest.raises(InvalidConfig, match="api_key"):
        serve(llm, port=0, api_key=key)


def test_a_server_open_to_the_network_without_a_key_says_so_once_in_its_log(llm: LLM) -> None:
    with serve(llm, host="0.0.0.0", port=0) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert sum("every network" in line for line in server.logs) == 1
    with serve(llm, host="0.0.0.0", port=0, api_key="k") as server:
        assert not [line for line in server.logs if "every network" in line]


# ---- places


def test_a_taken_port_names_who_holds_it(server: Server, llm: LLM) -> None:
    with pytest.raises(ToolkitError, match="this process"):
        serve(llm, port=server.port)
    program = (
        "import socket, sys\n"
        "with socket.create_server(('127.0.0.1', 0)) as held:\n"
        "    print(held.getsockname()[1], flush=True)\n"
        "    sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        port = int(other.stdout.readline())
        with pytest.raises(ToolkitError, match=rf"process {other.pid} \(.*python"):
            serve(llm, port=port)
        other.stdin.close()


def test_two_servers_share_one_llm_and_end_apart(llm: LLM) -> None:
    with serve(llm, port=0, served_model_name="a") as first:
        with serve(llm, port=0, served_model_name="b", api_key="k") as second:
            for server, name in ((first, "a"), (second, "b")):
                with server.client() as client:
                    answer = client.completions.create(model=name, prompt="Hello", max_tokens=1)
                assert answer.model == name
                assert answer.id in server.logs[-1]
                assert len([line for line in server.logs if "POST" in line]) == 1
        assert httpx.get(f"{first.url}/health").status_code == 200


def test_a_unix_socket_serves_plain_and_openai_clients_and_is_removed(
    llm: LLM, tmp_path: Path
) -> None:
    path = tmp_path / "toolkit.sock"
    with serve(llm, uds=path, served_model_name="tiny") as server:
        assert server.url == "http://localhost"
        assert str(path) in repr(server)
        with server.client() as client:
            assert client.completions.create(model="tiny", prompt="Hello", max_tokens=1).id
        with pytest.raises(ToolkitError, match="taken"):
            serve(llm, uds=path)

        async def ask() -> str:
            async with server.async_client() as client:
                answer = await client.completions.create(model="tiny", prompt="a", max_tokens=1)
                return answer.id

        assert asyncio.run(ask())
    assert not path.exists()


def test_a_unix_socket_that_a_killed_server_left_is_taken_over_and_a_file_is_not(
    llm: LLM, tmp_path: Path
) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serve(llm, uds=path) as server, server.address.http_client() as http:
        assert http.get("/health").status_code == 200
    path.write_text("mine")
    with pytest.raises(ToolkitError, match="no socket"):
        serve(llm, uds=path)
    assert path.read_text() == "mine"
    with pytest.raises(ToolkitError, match="No such file"):
        serve(llm, uds=tmp_path / "nowhere" / "a.sock")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its encrypted key; the password is "word"."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -days 2 -subj /CN=elsewhere -passout pass:word"
    subprocess.run(
        [*command.split(), "-out", cert, "-keyout", key], check=True, capture_output=True
    )
    return cert, key


def test_with_a_certificate_clients_speak_https_and_trust_it_alone(
    llm: LLM, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    files = {"ssl_certfile": cert, "ssl_keyfile": key, "ssl_keyfile_password": "word"}
    with serve(llm, port=0, served_model_name="tiny", **files) as server:
        assert server.base_url == f"https://127.0.0.1:{server.port}/v1"
        with server.client() as client:
            stream = client.chat.completions.create(**{**LONG, "max_tokens": 4})
            assert list(stream)[-1].choices[0].finish_reason == "length"
        assert server.langchain(max_tokens=2).invoke("Hello").id
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{server.url}/health")
        assert "word" not in repr(server.settings)


def test_tls_files_that_do_not_fit_are_refused_before_a_model_loads(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    for password in (None, "wrong"):
        with pytest.raises(InvalidConfig, match="ssl_keyfile"):
            serve("no-model", ssl_certfile=cert, ssl_keyfile=key, ssl_keyfile_password=password)
    with pytest.raises(InvalidConfig, match="no file"):
        serve("no-model", ssl_certfile=tmp_path / "none.pem")


def test_behind_a_proxy_paths_work_with_and_without_the_prefix_and_keys_hold(llm: LLM) -> None:
    with serve(llm, port=0, root_path="/llm", api_key="k") as server:
        for path in ("/v1/models", "/llm/v1/models"):
            url = f"{server.url}{path}"
            assert httpx.get(url).status_code == 401
            assert httpx.get(url, headers={"authorization": "Bearer k"}).status_code == 200
        assert '"/llm/openapi.json"' in httpx.get(f"{server.url}/llm/docs").text.replace("'", '"')


def test_pages_may_call_only_if_their_origin_is_allowed(llm: LLM, server: Server) -> None:
    page = {"origin": "https://page.example"}
    preflight = {**page, "access-control-request-method": "POST"}
    with serve(llm, port=0, allowed_origins=page["origin"], api_key="k") as open_server:
        url = f"{open_server.base_url}/models"
        answer = httpx.options(url, headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == page["origin"]
        answer = httpx.get(url, headers=page)
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == page["origin"]
        other = httpx.get(url, headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
    answer = httpx.get(f"{server.base_url}/models", headers=page)
    assert "access-control-allow-origin" not in answer.headers


# ---- looks


def test_a_server_and_its_log_show_in_a_cell(llm: LLM) -> None:
    with serve(llm, port=0, served_model_name="<tiny>") as server:
        httpx.get(f"{server.url}/health")
        shown = server._repr_html_()
        for part in ("running", server.base_url, "&lt;tiny&gt;", "0 waiting", "MiB", "curl"):
            assert part in shown
        assert "<tiny>" not in shown
        assert "GET /health 200" in repr(server.logs)
        assert "GET /health 200" in server.logs._repr_html_()
        assert isinstance(server.logs, list)
    assert "stopped" in server._repr_html_()
    assert "curl" not in server._repr_html_()


def test_who_only_looks_is_not_in_the_log(llm: LLM) -> None:
    with serve(llm, port=0, dev=True) as server:
        for path in ("/metrics", "/engine/state", "/engine/record/steps", "/engine/nowhere"):
            httpx.get(server.url + path)
        looks = [line for line in server.logs if "GET" in line]
    assert len(looks) == 1
    assert "/engine/nowhere 404" in looks[0]  # what goes wrong is


def test_a_setting_that_nobody_has_is_refused_with_the_nearest(llm: LLM) -> None:
    with pytest.raises(InvalidConfig, match="did you mean max_model_len"):
        serve(port=0, max_modle_len=16)


def test_loggers_are_left_as_they_were(llm: LLM) -> None:
    own = logging.getLogger("toolkit.server")
    with serve(llm, port=0):
        before = list(own.handlers)
        with serve(llm, port=0):
            assert len(own.handlers) == len(before) + 1
        assert own.handlers == before
        assert not logging.getLogger("uvicorn.error").propagate


# ---- end


def test_a_stop_that_waits_can_be_hurried(llm: LLM) -> None:
    server = serve(llm, port=0, served_model_name="tiny")
    with server.client(max_retries=0) as client, llm.engine.paused():
        stream = client.chat.completions.create(**LONG)
        stopping = threading.Thread(target=server.stop, kwargs={"grace_s": 60})
        stopping.start()
        server.hurry()
        stopping.join(20)
        assert not stopping.is_alive()
        with pytest.raises(openai.APIError, match="aborted"):
            list(stream)


def test_a_call_that_is_refused_while_the_server_stops_hangs_nowhere(llm: LLM) -> None:
    server = serve(llm, port=0, served_model_name="tiny")
    with server.client(max_retries=0) as client:
        stream = client.chat.completions.create(**LONG)
        next(stream)
        stopping = threading.Thread(target=server.stop, kwargs={"grace_s": 0.0})
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()
        with pytest.raises(openai.APIConnectionError):
            client.models.list()


@pytest.mark.slow
def test_a_kernel_that_ends_while_it_serves_ends_quietly_and_at_once() -> None:
    program = (
        "from toolkit import serve\n"
        "server = serve(port=0, num_kv_blocks=128, grace_s=600)\n"
        "ask = {'model': server.model_name, 'prompt': [1], 'max_tokens': 500, 'stream': True}\n"
        "client = server.client()\n"
        "stream = client.completions.create(**ask, extra_body={'ignore_eos': True})\n"
        "next(stream)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_what_is_wrong_with_the_engine_shows_in_the_servers_state(model_folder: Path) -> None:
    with LLM(str(model_folder), num_kv_blocks=16) as llm, serve(llm, port=0) as server:
        with llm.engine.paused():
            assert "paused" in repr(server)
        assert repr(server).endswith("running)")
        llm.close()
        assert "engine was closed" in repr(server)


def test_a_request_that_fails_leaves_its_traceback_in_the_log(model_folder: Path) -> None:
    def divides(logits: object, at: object) -> None:
        raise ZeroDivisionError("by a student")

    with serve(str(model_folder), port=0, num_kv_blocks=16, processors={"d": divides}) as server:
        with server.client(max_retries=0) as client, pytest.raises(openai.InternalServerError):
            client.completions.create(
                model=server.model_name, prompt="a", extra_body={"processors": ["d"]}
            )
        assert any("in divides" in line for line in server.logs)
