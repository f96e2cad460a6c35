"""The other processes of a model end with it, however it ends, and never leave anybody waiting."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from tests.engine.deadline import eventually
from tests.models.checkpoints import PROMPTS
from tests.runtime.tensor_parallel.processes import load, workers_of
from tests.server.tiny_model import write_tiny_model
from toolkit import LLM, SamplingParams, live
from toolkit.errors import EngineClosed, InvalidConfig, WorkerFailed
from toolkit.models import decoder_spec, read_config
from toolkit.runtime.tensor_parallel import start
from toolkit.runtime.tensor_parallel.orders import Begin
from toolkit.runtime.tensor_parallel.workers import Workers
from toolkit.server import serve

pytestmark = pytest.mark.slow  # each starts processes of its own

LONG = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
# What is promised, from the death of a process to the error.
PROMISED_S = 10.0


@pytest.fixture
def two(folder: Path) -> Iterator[LLM]:
    with load(folder, tensor_parallel=2) as llm:
        yield llm
    assert workers_of() == []


def its_worker(llm: LLM) -> int:
    (worker,) = workers_of()
    return worker


@contextmanager
def soon(signal_number: int, process_id: int, after_s: float = 0.3) -> Iterator[None]:
    """Send a signal while the block runs."""
    timer = threading.Timer(after_s, os.kill, (process_id, signal_number))
    timer.start()
    yield
    timer.join()


def endless(llm: LLM) -> Iterator[BaseException | None]:
    """Generate until something goes wrong; yield what."""
    while True:
        for output in llm.generate(PROMPTS, LONG, progress=False):
            if output.error is not None:
                yield output.error


def test_a_killed_process_is_the_end_of_the_running_requests_and_is_named(two: LLM):
    worker = its_worker(two)
    with soon(signal.SIGKILL, worker):
        error = next(endless(two))
    assert isinstance(error, WorkerFailed)
    assert f"process {worker}, 2 of the 2 of this model, was killed by signal 9" in str(error)
    assert workers_of() == []
    # And it stays so: nobody waits, whatever is asked.
    started = time.monotonic()
    for ask in (two.generate, two.embed):
        with pytest.raises(WorkerFailed, match="killed by signal 9"):
            ask(PROMPTS[0])
    assert time.monotonic() - started < 2


def test_a_process_that_dies_while_nobody_asks_is_noticed(two: LLM):
    two.generate(PROMPTS[0], SHORT)
    os.kill(its_worker(two), signal.SIGTERM)
    eventually(lambda: two.engine.failure is not None)
    assert workers_of() == []
    with pytest.raises(WorkerFailed, match=r"killed by signal 15.*make a new one"):
        two.generate(PROMPTS[0], SHORT)


def test_a_process_that_hangs_is_given_up_and_ended(two: LLM):
    worker = its_worker(two)
    two.generate(PROMPTS[0], SHORT)
    os.kill(worker, signal.SIGSTOP)
    started = time.monotonic()
    error = two.generate(PROMPTS[0], SHORT)[0].error
    assert time.monotonic() - started < PROMISED_S
    assert isinstance(error, WorkerFailed)
    assert "did not answer for 7 s" in str(error)
    eventually(lambda: workers_of() == [])


def test_the_other_processes_are_unharmed_by_interrupts_of_which_they_know_nothing(two: LLM):
    expected = two.generate(PROMPTS, SHORT, progress=False)
    worker = its_worker(two)
    os.kill(worker, signal.SIGINT)
    assert os.getsid(worker) != os.getsid(0)  # not in reach of a terminal's Ctrl-C
    for after_s in (0.01, 0.05, 0.1):
        with pytest.raises(KeyboardInterrupt), soon(signal.SIGINT, os.getpid(), after_s):
            for _ in endless(two):
                pass
        again = two.generate(PROMPTS, SHORT, progress=False)
        assert [o.outputs[0].token_ids for o in again] == [o.outputs[0].token_ids for o in expected]


def test_an_interrupt_of_steps_by_hand_tears_no_sum_apart(two: LLM):
    engine = two.engine
    for after_s in (0.005, 0.01, 0.02, 0.03):
        request = engine.add(PROMPTS[0], LONG)
        with soon(signal.SIGINT, os.getpid(), after_s):
            try:
                while not request.is_finished:
                    engine.step()
                time.sleep(0.5)  # for an interrupt that comes late
            except KeyboardInterrupt:
                pass
        engine.run_until_idle()
        assert request.error is None
        assert request.num_output_tokens == 80


def test_the_command_says_that_processes_start_and_how_many_serve(tmp_path: Path):
    command = [sys.executable, "-m", "toolkit", "serve", str(write_tiny_model(tmp_path))]
    command += ["--port", "0", "--tensor-parallel-size", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        banner = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == 0, errors
    assert "by 2 processes" in banner
    assert "Starting 2 processes" in errors


def test_close_ends_the_processes_and_gives_the_threads_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    num_threads = torch.get_num_threads()
    llm = load(folder, tensor_parallel=2, num_threads=2)
    assert "Starting 2 processes" in capsys.readouterr().err
    assert torch.get_num_threads() == 1
    assert "2 processes" in repr(llm)
    assert "each of 2 processes" in repr(llm.memory_plan())
    assert any("2 processes" in row.where for row in live())
    (worker,) = workers_of()
    llm.generate(PROMPTS[0], SHORT)
    llm.close()
    llm.close()
    assert workers_of() == []
    assert not Path(f"/proc/{worker}").exists()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(num_threads)
    with pytest.raises(EngineClosed):
        llm.generate(PROMPTS[0], SHORT)


def test_an_llm_that_is_dropped_takes_its_processes_along(folder: Path):
    llm = load(folder, tensor_parallel=2)
    llm.generate(PROMPTS[0], SHORT)
    del llm
    gc.collect()
    assert workers_of() == []


def test_a_setting_that_turns_out_wrong_late_leaves_no_process(folder: Path):
    with pytest.raises(InvalidConfig, match="nonsense"):
        load(folder, tensor_parallel=2, policy="nonsense")
    assert workers_of() == []


def test_an_interrupted_start_leaves_no_process(folder: Path):
    def start_and_rest() -> None:
        load(folder, tensor_parallel=2)
        time.sleep(5)  # where a start takes less than a second

    with pytest.raises(KeyboardInterrupt), soon(signal.SIGINT, os.getpid(), 1.0):
        start_and_rest()
    assert workers_of() == []


def test_a_start_that_fails_tells_what_the_process_wrote(folder: Path, tmp_path: Path):
    device = torch.device("cpu")
    begin = Begin(
        rank=1,
        size=2,
        spec=decoder_spec(read_config(str(folder))),
        family="llama",
        folder=tmp_path,  # in which there is nothing
        dtype=torch.float32,
        device=device,
        kernels="reference",
        num_threads=1,
    )
    workers = Workers(2, device)
    workers.start([begin])
    with pytest.raises(WorkerFailed, match=r"(?s)ended with code 1.*Traceback.*no weights in") as e:
        workers.hear(60)
    assert "Traceback" not in e.value.summary
    workers.close()
    assert workers_of() == []


def test_a_process_that_cannot_be_started_is_told_of(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerFailed, match=r"cannot be started: FileNotFoundError.*nowhere"):
        load(folder, tensor_parallel=2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerFailed, match="ended with code 1"):
        load(folder, tensor_parallel=2)


def test_a_process_that_hangs_at_its_start_is_given_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sleeper = tmp_path / "python"
    sleeper.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/number\nexec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    monkeypatch.setattr(start, "_LATE_S", 1.0)
    monkeypatch.setattr(start, "_LATE_TIMES", 0)
    num_threads = torch.get_num_threads()
    with pytest.raises(WorkerFailed, match=r"process \d+ was not ready after 1 s; .*make a new"):
        load(folder, tensor_parallel=2)
    number = (tmp_path / "number").read_text().strip()
    assert not Path(f"/proc/{number}").exists()
    assert torch.get_num_threads() == num_threads


FORK = """
import gc, os, signal, sys
from pathlib import Path
from tests.runtime.tensor_parallel.processes import load
from toolkit import SamplingParams
from toolkit.errors import EngineError
llm = load(Path(sys.argv[1]), tensor_parallel=2)
params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
def tokens():
    return llm.generate([5, 6, 7], params, progress=False)[0].outputs[0].token_ids
before = tokens()
for what in ("close", "collect", "leave", "end"):
    child = os.fork()
    if not child:
        signal.alarm(20)  # which ends one that hangs
        try:
            llm.engine.runner.decoder.logits(None)
        except EngineError as error:
            assert "make a new LLM here" in str(error), error
        if what == "close":
            llm.close()
        elif what == "collect":
            del llm
            gc.collect()
        elif what == "leave":
            sys.exit(0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, (what, status)
    assert tokens() == before, what
llm.close()
print("well")
"""


def test_a_fork_leaves_the_processes_to_the_one_that_started_them(folder: Path):
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "well\n", done.stderr[-2000:]


def test_a_request_over_http_is_told_in_openais_words(tmp_path: Path):
    two = load(write_tiny_model(tmp_path), tensor_parallel=2, tokenizer=None)
    with serve(two, port=0) as server:
        body = {"model": server.model_name, "prompt": "Hello", "max_tokens": 80}
        body |= {"temperature": 0, "ignore_eos": True}
        with httpx.Client(base_url=server.base_url, timeout=30) as client:
            assert client.post("completions", json=body).status_code == 200
            assert client.get(f"{server.url}/health").status_code == 200
            with soon(signal.SIGKILL, its_worker(two), 0.1):
                while (answer := client.post("completions", json=body)).status_code == 200:
                    pass
            later = [
                client.post("completions", json=body | {"stream": True}),
                client.get(f"{server.url}/health"),
            ]
        error = answer.json()["error"]
        assert answer.status_code == 503
        assert error["type"] == "server_error"
        assert error["code"] == "engine_unavailable"
        assert "was killed by signal 9" in error["message"]
        for each in later:
            assert each.status_code == 503
            assert "was killed by signal 9" in each.json()["error"]["message"]
    two.close()
    assert workers_of() == []


SCRIPT = """
import sys, time
from tests.runtime.tensor_parallel.processes import workers_of
from toolkit import LLM, SamplingParams
llm = LLM(tensor_parallel=2)
print(*workers_of(), flush=True)
params = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True)
if sys.argv[1] == "busy":
    while True:
        llm.generate("The red cat", params, progress=False)
elif sys.argv[1] == "idle":
    time.sleep(600)
elif sys.argv[1] == "driven":
    llm.engine.start()
    llm.engine.add("The red cat", params)
print("the end", flush=True)
"""


@contextmanager
def script(what: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, what],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


@pytest.mark.parametrize("what", ["busy", "idle"])
def test_the_processes_end_with_one_that_is_killed(what: str, tmp_path: Path):
    with script(what, tmp_path) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
        parent.wait()
        eventually(lambda: not Path(f"/proc/{worker}").exists(), patience_s=5)
        assert list(tmp_path.glob("toolkit-*")) == []


@pytest.mark.parametrize("what", ["nothing", "driven"])
def test_a_script_that_forgets_to_close_leaves_nothing(what: str, tmp_path: Path):
    with script(what, tmp_path) as parent:
        written, complaints = parent.communicate(timeout=60)
        worker, *rest = written.split("\n", 1)
        assert rest == ["the end\n"]
        assert parent.returncode == 0
        written_besides = [line for line in complaints.splitlines() if "Starting" not in line]
        assert "".join(written_besides) == "", "the bar of the start is all there is"
        eventually(lambda: not Path(f"/proc/{worker}").exists(), patience_s=5)
        assert list(tmp_path.glob("toolkit-*")) == []


def test_a_server_in_a_process_of_its_own_has_processes_too_and_ends_them():
    with serve(process=True, port=0, tensor_parallel=2) as server:
        (worker,) = workers_of(server.process_id)
        with server.client() as client:
            answer = client.completions.create(model=server.model_name, prompt="The", max_tokens=4)
        assert answer.choices[0].text
    assert not Path(f"/proc/{worker}").exists()
