"""Runs over HTTP as a user starts them: client processes, tables, notes, an interrupt."""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from array import array
from collections.abc import Iterator

import pytest

from tests.client.fake_server import FakeServer, fake_server
from toolkit import experiments
from toolkit.client import processes
from toolkit.client.exchange import Answer
from toolkit.client.load import Item
from toolkit.client.processes import ask
from toolkit.client.target import Target
from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.experiments import AtOnce, Closed, Constant, Fixed, Workload
from toolkit.experiments.runs.over_http.bodies import Speech
from toolkit.experiments.runs.over_http.tables import notes_on


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


def test_a_run_has_a_row_per_request_and_the_servers_counts(server: FakeServer) -> None:
    w = Workload(Constant(50.0), Fixed(8, 4), num_requests=5, tags={"tenant": ["a", "b"]})
    run = experiments.run(w, on=f"{server.url}/v1", headers={"X-Team": "blue"}, api_key="secret")
    requests = run.requests
    assert requests["arrival_id"].tolist() == [0, 1, 2, 3, 4]
    assert requests["status"].tolist() == ["finished"] * 5
    assert requests["num_prompt_tokens"].tolist() == [11] * 5
    assert requests["num_cached_tokens"].isna().all()
    assert (requests["ttft_s"] >= requests["first_token_s"] - requests["sent_s"]).all()
    assert set(requests["tags.tenant"]) <= {"a", "b"}
    assert len(run.tokens) == 5 * 4
    gaps = run.tokens.groupby("arrival_id")["time_s"].diff().dropna()
    assert gaps.median() == pytest.approx(server.gap_s, abs=0.05)
    assert requests["itl_max_s"].max() == pytest.approx(gaps.max())
    # One warm-up request, whose prompt is another.
    assert [len(body["prompt"]) for body in server.bodies] == [8] * 6
    assert len({tuple(body["prompt"]) for body in server.bodies}) == 6
    assert all(body["ignore_eos"] for body in server.bodies)
    posts = [head for head in server.heads if head.startswith("POST")]
    assert all("X-Team: blue" in head and "Bearer secret" in head for head in posts)
    assert "secret" not in repr(run.settings)
    assert run.environment["server"] == "fake"
    assert run.record is None
    assert run.saturation is not None
    assert run.saturation.num_processes == 1


def test_a_chat_is_text_and_several_processes_share_the_load(server: FakeServer) -> None:
    w = Workload(Closed(4), Fixed(6, 3), num_requests=12)
    run = experiments.run(w, on=server.url, api="chat", processes=2, warmup=0, ignore_eos=False)
    assert run.requests["status"].tolist() == ["finished"] * 12
    assert run.saturation is not None
    assert run.saturation.num_processes == 2
    assert server.most_open <= 4
    for asked in server.bodies:
        assert len(asked["messages"][0]["content"].split()) == 6
        assert "ignore_eos" not in asked


@pytest.mark.slow
def test_what_the_figures_lack_is_said(server: FakeServer) -> None:
    w = Workload(AtOnce(), Fixed(8, 6), num_requests=3)
    silent = experiments.run(w, on=server.url, model="silent", warmup=0, max_in_flight=1)
    assert silent.requests["num_output_tokens"].tolist() == [6] * 3
    assert silent.requests["num_prompt_tokens"].tolist() == [8] * 3
    assert any("told no usage" in note for note in silent.notes)
    assert any("held back 2 requests" in note for note in silent.notes)
    assert silent.saturation is not None
    assert math.isnan(silent.saturation.send_lag_max_s)  # all were due at once
    pairs = experiments.run(w, on=server.url, model="pairs", warmup=0)
    assert any("2.00 tokens on average" in note for note in pairs.notes)
    busy = experiments.run(w, on=server.url, model="busy", warmup=0)
    assert any("3 of 3 requests failed; the first: 429" in note for note in busy.notes)
    assert busy.tokens.empty
    assert busy.summary().at["failed", "num"] == 3


def answer(*, num_pieces: int, num_prompt: int | None = 8, num_output: int | None) -> Answer:
    """A good answer with the counts that the server told."""
    made = Answer(0, 0.0, 0.0, 0.0, array("d", range(num_pieces)), status="finished")
    made.num_prompt_tokens, made.num_output_tokens = num_prompt, num_output
    return made


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (answer(num_pieces=4, num_output=4), None),
        (answer(num_pieces=8, num_output=4), "a token came in 2.00 pieces"),
        (answer(num_pieces=2, num_output=4), "held 2.00 tokens"),
        (answer(num_pieces=4, num_output=None), "told no usage for 1 answers"),
        (answer(num_pieces=4, num_output=4, num_prompt=None), "told no usage for 1 answers"),
    ],
)
def test_what_tokens_and_pieces_are_is_said(told: Answer, says: str | None) -> None:
    w = Workload(AtOnce(), Fixed(8, 4), num_requests=1)
    notes = notes_on([told], w)
    assert [says in note for note in notes] == [True] if says else notes == []


def test_an_interrupt_returns_what_there_is(server: FakeServer) -> None:
    def interrupt() -> None:
        while len(server.bodies) < 3:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    w = Workload(Constant(20.0), Fixed(4, 2), num_requests=200)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    run = experiments.run(w, on=server.url, warmup=0)
    interrupter.join()
    assert 2 <= len(run.requests) < 200
    assert run.is_interrupted
    assert "interrupted" in run.notes[0]
    assert run.saturation is not None
    assert run.saturation.num_unsent == 200 - len(run.requests)


def test_bodies_are_given_as_they_are_sent(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two bodies ahead, the rest are made while the load runs."""
    monkeypatch.setattr(processes, "_AHEAD_BYTES", 100)
    monkeypatch.setattr(processes, "_BATCH_BYTES", 50)
    made = []

    def items() -> Iterator[Item]:
        for number in range(8):
            made.append(number)
            yield Item(number, 0.0, number - 1, b'{"model": "tokens", "max_tokens": 2, "x": 1}')

    told = []
    outcome = ask(Target(url=server.url), items(), progressed=told.append)
    assert made == list(range(8))
    assert sum(told) == len(outcome.answers) == 8


def test_a_client_process_that_dies_is_an_error(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes.sys, "executable", shutil.which("false"))
    with pytest.raises(ToolkitError, match="client process ended with code 1"):
        ask(Target(url=server.url), iter([Item(0, 0.0, -1, b"{}")]))


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(InvalidConfig, match="end of a line"):
        Target(url="http://x", headers={"X-Team": "a\r\nX-Other: b"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policy": "shortest-first"}, "set where it is started"),
        ({"burstiness": 2}, "no option burstiness"),
        ({"api": "embeddings"}, "api="),
        ({"api": "chat", "prompts": "token_ids"}, "a chat is text"),
        ({"processes": 0}, "processes="),
        ({"warmup": -1}, "warmup="),
        ({"max_in_flight": 0}, "max_in_flight="),
        ({"max_in_flight": -1}, "max_in_flight="),
        ({"max_in_flight": 1.5}, "max_in_flight="),
        ({"timeout_s": -1}, "timeout_s="),
        ({"timeout_s": math.nan}, "timeout_s="),
        ({"timeout_s": "x"}, "timeout_s="),
        ({"extra_body": {"stop": {1, 2}}}, "extra_body="),
        ({"extra_body": {"top_p": math.nan}}, "extra_body="),
        ({"extra_body": "x"}, "extra_body="),
    ],
)
def test_options_that_make_no_sense_are_refused(
    server: FakeServer, options: dict[str, object], says: str
) -> None:
    w = Workload(AtOnce(), Fixed(4, 2), num_requests=1)
    with pytest.raises(InvalidConfig, match=says):
        experiments.run(w, on=server.url, **options)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:99999999"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="http://HOST:PORT"):
        Target(url=url)


def test_paths_begin_where_the_url_says() -> None:
    assert b"POST /v1/completions HTTP/1.1" in Target(url="http://x/v1/").head
    assert b"POST /api/v1/chat/completions" in Target(url="http://x/api", api="chat").head


def test_a_decoder_makes_the_text_of_prompts() -> None:
    speech = Speech(api="completions", model="m", vocab_size=9, prompts="text", decode=repr)
    assert b'"prompt": "[1, 2]"' in speech.body([1, 2], 3)
