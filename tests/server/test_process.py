"""serve(process=True): the same handle over a server that has a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest

import toolkit
from tests.engine.deadline import eventually
from toolkit.engine.snapshot import EngineSnapshot
from toolkit.errors import EngineError, InvalidConfig, ModelError, ToolkitError
from toolkit.llm import LLM
from toolkit.record import Record
from toolkit.server import ServerProcess, serve
from toolkit.server.process import _own_error

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def apart(model_folder: Path) -> Iterator[ServerProcess]:
    with serve(
        model_folder,
        port=0,
        process=True,
        served_model_name=["tiny", "alias"],
        api_key="secret",
        num_kv_blocks=64,
    ) as server:
        yield server


@pytest.mark.slow
def test_clients_of_all_kinds_are_answered(apart: ServerProcess) -> None:
    with apart.client() as client:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)
    assert answer.id.startswith("chatcmpl-")
    eventually(lambda: any(answer.id in line for line in apart.logs))  # lines come by a pipe

    async def ask() -> str:
        async with apart.async_client() as client:
            return (await client.completions.create(model="alias", prompt="a", max_tokens=1)).model

    assert asyncio.run(ask()) == "alias"
    assert apart.langchain(max_tokens=2).invoke("Hello").response_metadata["model_name"] == "tiny"
    assert httpx.get(f"{apart.base_url}/models").status_code == 401


@pytest.mark.slow
def test_tables_and_snapshots_of_its_engine_come_by_http(apart: ServerProcess) -> None:
    with apart.client() as client:
        answer = client.completions.create(
            model="tiny", prompt=[1, 2, 3], max_tokens=5, extra_body={"ignore_eos": True}
        )
    record = apart.engine.record
    row = record.requests.set_index("api_id").loc[answer.id]
    assert (row["num_prompt_tokens"], row["num_output_tokens"]) == (3, 5)
    assert row["status"] == "finished"
    assert isinstance(record.steps, pd.DataFrame)
    assert record.steps["num_tokens"].dtype == "int64"
    assert record.steps["start_s"].dtype == "float64"
    assert list(record.tail("tokens", 2)["index"]) == [3, 4]
    assert set(record.tables) <= set(dir(record))
    assert record.level == "tokens"
    assert record.started_at.tzinfo is not None
    snapshot = apart.engine.snapshot()
    assert isinstance(snapshot, EngineSnapshot)
    assert snapshot.running == snapshot.waiting == ()
    assert sum(snapshot.blocks) == 64
    assert apart.engine.is_running
    assert apart.metrics["vllm:generation_tokens_total"] >= 5
    assert apart.engine.reset_prefix_cache() == snapshot.blocks.cached


@pytest.mark.slow
def test_its_record_is_read_by_rows_and_fetched_whole(apart: ServerProcess, tmp_path: Path) -> None:
    remote = apart.engine.record
    _, cursor = remote.since("tokens", 0)
    with apart.client() as client:
        answer = client.completions.create(
            model="tiny", prompt=[4, 5], max_tokens=3, extra_body={"ignore_eos": True}
        )
    fresh, end = remote.since("tokens", cursor)
    assert list(fresh["index"]) == [0, 1, 2]
    assert end == cursor + 3 == remote.num_rows("tokens")
    whole = remote.freeze()
    for table in remote.tables:
        assert list(getattr(whole, table).columns) == list(getattr(remote, table).columns)
        assert len(getattr(whole, table)) == remote.num_rows(table)
    assert (whole.config, whole.level) == (remote.config, remote.level)
    assert whole.num_dropped == remote.num_dropped
    assert remote.generation == 0
    name = remote.requests.set_index("api_id")["request_id"][answer.id]
    pd.testing.assert_frame_equal(remote.spans([name]), whole.spans([name]), check_dtype=False)
    assert len(remote.spans()) == len(whole.spans())
    assert remote.facts(name, 2) is None
    assert whole.summary().loc["ttft_s", "num"] == whole.requests["first_token_s"].notna().sum()
    assert Record.load(remote.save(tmp_path / "run.zip")).num_rows("tokens") == end


@pytest.mark.slow
def test_its_tables_can_be_followed_for_a_dashboard(apart: ServerProcess) -> None:
    apart.client().completions.create(model=apart.model_name, prompt="x", max_tokens=3)
    record = apart.engine.record
    tokens, cursor = record.since("tokens", 0, ("request_id", "index", "sent_s"))
    assert len(tokens) == cursor == len(record.tokens)
    assert list(tokens) == ["request_id", "index", "sent_s"]
    requests = record.requests
    assert record.ttft_s(requests.request_id) == pytest.approx(
        dict(zip(requests.request_id, requests.ttft_s, strict=True))
    )
    assert record.num_blocks == apart.engine.state()["cache"]["num_blocks"]
    assert record.block_size == apart.engine.state()["cache"]["block_size"]
    assert apart.facts()["requests"] == "0 running, 0 waiting"


def test_it_can_be_paused_and_seen_waiting(apart: ServerProcess) -> None:
    apart.engine.pause()
    with apart.client() as client:
        stream = client.completions.create(model="tiny", prompt=[1, 2], max_tokens=2, stream=True)
        assert apart.engine.is_paused
        snapshot = apart.engine.snapshot()
        (request,) = (*snapshot.running, *snapshot.waiting)
        assert request.num_prompt_tokens == 2
        assert request.block_ids == ()
        apart.engine.resume()
        assert list(stream)


@pytest.mark.slow
def test_what_cannot_be_had_from_here_says_why(apart: ServerProcess) -> None:
    with pytest.raises(AttributeError, match="another process"):
        _ = apart.engine.scheduler
    with pytest.raises(AttributeError, match=r"steps, chunks, .*freeze\(\) fetches"):
        _ = apart.engine.record.summary
    for path in ("/engine/state", "/is_paused"):  # only this handle has their key
        headers = {"authorization": "Bearer secret"}
        assert httpx.get(f"{apart.url}{path}", headers=headers).status_code == 404


@pytest.mark.slow
def test_it_shows_in_a_cell_and_in_the_list_of_what_lives(apart: ServerProcess) -> None:
    shown = apart._repr_html_()
    for part in ("running", apart.base_url, "tiny, alias", str(apart.process_id), "needed"):
        assert part in shown
    (row,) = [row for row in toolkit.live() if row.where == apart.url]
    assert row.kind == "server process"
    assert row.resident_bytes is None or row.resident_bytes > 50 * 2**20
    assert row.weight_bytes
    assert "secret" not in f"{apart!r} {shown} {apart.logs}"
    command = Path(f"/proc/{apart.process_id}/cmdline")
    if command.exists():
        assert b"secret" not in command.read_bytes()


@pytest.mark.slow
def test_stop_frees_the_port_ends_the_process_and_is_idempotent(model_folder: Path) -> None:
    server = serve(model_folder, port=0, process=True, num_kv_blocks=64)
    again = {"port": server.port, "process": True, "num_kv_blocks": 64}
    with pytest.raises(ToolkitError, match=rf"taken by process {server.process_id} "):
        serve(model_folder, **again)
    server.stop(grace_s=0)
    server.stop()
    assert not server.is_running
    assert "stopped" in repr(server)
    assert server.url not in [row.where for row in toolkit.live()]
    with pytest.raises(EngineError, match="does not answer"):
        server.engine.snapshot()
    with serve(model_folder, **again) as second:
        assert second.port == server.port
        os.kill(second.process_id, signal.SIGKILL)
        second.stop()
    assert "stopped" in second._repr_html_()


@pytest.mark.slow
def test_what_goes_wrong_in_the_process_is_raised_in_the_cell(
    model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no-model"):
        serve(tmp_path / "no-model", port=0, process=True)
    with pytest.raises(InvalidConfig, match="max_model_len"):
        serve(model_folder, port=0, process=True, max_model_len=10**9)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent_however_that_ends(model_folder: Path, how: signal.Signals) -> None:
    program = (
        "import json, sys\n"
        "from toolkit import serve\n"
        f"server = serve({str(model_folder)!r}, port=0, process=True, num_kv_blocks=64)\n"
        "print(json.dumps([server.process_id, server.url]), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as parent:
        process_id, url = json.loads(parent.stdout.readline())
        assert httpx.get(f"{url}/health").status_code == 200
        parent.send_signal(how)
        parent.wait(timeout=30)
        parent.stdin.close()
        while is_alive(process_id):
            os.sched_yield()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health")


def is_alive(process_id: int) -> bool:
    """Say whether a process lives; one that ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# ---- what needs no process


def test_objects_of_this_process_are_refused(llm: LLM) -> None:
    with pytest.raises(InvalidConfig, match="folder or hub id"):
        serve(llm, process=True)
    with pytest.raises(InvalidConfig, match="processors"):
        serve(process=True, processors={"p": abs})
    with pytest.raises(InvalidConfig, match="hooks"):
        serve(process=True, hooks={"h": object()})
    with pytest.raises(InvalidConfig, match="policy"):
        serve(process=True, policy=lambda request, view: 0)


def test_an_error_comes_back_as_the_class_that_it_was() -> None:
    assert _own_error("InvalidConfig") is InvalidConfig
    assert _own_error("OSError") is ToolkitError
    assert _own_error("annotations") is ToolkitError
