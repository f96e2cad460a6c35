"""The command line: each command does its work, and errors are one line."""

from __future__ import annotations

import _thread
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests.server.tiny_model import write_tiny_model
from toolkit.cli import app
from toolkit.cli.chat import Conversation
from toolkit.cli.doctor import examine
from toolkit.cli.doctor_cpu import compile_ops, threads
from toolkit.engine.events import TokenSampled
from toolkit.kernels.cpu import build
from toolkit.kernels.cpu.levels import LEVELS, Level
from toolkit.llm import LLM

runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def llm(model: str) -> Iterator[LLM]:
    with LLM(model, max_num_seqs=2, max_model_len=256) as llm:
        yield llm


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, toolkit.cli; print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_names_every_command() -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("generate", "chat", "serve", "conformance", "bench", "doctor", "demo"):
        assert command in result.stdout
        assert runner.invoke(app, [command, "--help"]).exit_code == 0


def test_generate_continues_a_prompt(model: str, llm: LLM) -> None:
    options = ["--model", model, "--max-tokens", "8", "--temperature", "0"]
    result = runner.invoke(app, ["generate", "Hello world", *options])
    (output,) = llm.generate("Hello world", llm.sampling_params(temperature=0, max_tokens=8))
    assert result.exit_code == 0
    assert result.stdout == output.text + "\n"
    from_stdin = runner.invoke(app, ["generate", "-", *options], input="Hello world")
    assert from_stdin.stdout == result.stdout


def test_generate_shows_several_samples(model: str) -> None:
    options = ["--model", model, "--max-tokens", "4", "--seed", "1", "-n", "2"]
    result = runner.invoke(app, ["generate", "Hello", *options])
    assert result.exit_code == 0
    assert "1 of 2" in result.stdout
    assert "2 of 2" in result.stdout


def test_a_mistake_is_one_line_unless_the_traceback_is_wanted(tmp_path: Path) -> None:
    command = ["generate", "Hello", "--model", str(tmp_path / "nothing")]
    result = runner.invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    shown = runner.invoke(app, ["--traceback", *command])
    assert type(shown.exception).__module__ == "toolkit.errors"


def test_chat_answers_forgets_and_leaves(model: str) -> None:
    typed = "Hello world\n/reset\n/system Be brief.\n/what\n\nHello\n/quit\nnever read\n"
    options = ["--model", model, "--max-tokens", "4", "--temperature", "0"]
    result = runner.invoke(app, ["chat", *options], input=typed)
    assert result.exit_code == 0
    assert result.stdout.count("tokens/s") == 2
    assert result.stdout.count("A new conversation.") == 2
    assert "/system TEXT" in result.stdout
    assert runner.invoke(app, ["chat", *options], input="").exit_code == 0


def test_a_conversation_remembers_what_was_said(llm: LLM) -> None:
    conversation = Conversation(llm, llm.sampling_params(max_tokens=3), system="Be brief.")
    conversation.answer("Hello")
    conversation.answer("Hello again")
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    conversation.reset()
    assert [message["content"] for message in conversation.messages] == ["Be brief."]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(llm: LLM) -> None:
    def interrupt(event: TokenSampled) -> None:
        if event.index == 5:
            time.sleep(0.3)  # for who reads to take what there is by now
            _thread.interrupt_main()

    unsubscribe = llm.engine.on(TokenSampled, interrupt)
    params = llm.sampling_params(max_tokens=None, ignore_eos=True)
    conversation = Conversation(llm, params)
    conversation.answer("Hello")
    unsubscribe()
    assert conversation.messages[-1]["role"] == "assistant"
    assert 0 < len(llm.tokenizer.encode(conversation.messages[-1]["content"])) < 200
    assert llm.engine.snapshot().running == ()


def test_a_conversation_that_grew_too_long_says_so(
    llm: LLM, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = Conversation(llm, llm.sampling_params(max_tokens=1))
    conversation.answer("x" * 300)
    assert conversation.messages == []
    assert "/reset" in capsys.readouterr().out


def test_doctor_examines_everything_and_writes_json() -> None:
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    findings = {
        (finding["section"], finding["name"]): finding for finding in json.loads(result.stdout)
    }
    assert findings["packages", "torch"]["is_fine"]
    assert findings["toolkit", "kernels"]["value"]
    assert findings["threads", "threads"]["value"]
    assert findings["threads", "OMP_WAIT_POLICY"]["value"]
    assert findings["C++ ops", "level"]["value"] in {level.name for level in LEVELS}
    assert findings["C++ ops", "compiled"]["value"]
    assert "doctor" in runner.invoke(app, ["doctor"]).stdout


def test_doctor_fails_where_something_must_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CPU_LEVEL", "avx1024")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "unset TOOLKIT_CPU_LEVEL" in result.stdout
    assert runner.invoke(app, ["doctor", "--compile"]).exit_code == 1


def test_doctor_compiles_the_ops_and_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "compile_library", lambda level: tmp_path / f"{level.name}.so")
    (fact,) = compile_ops()
    assert fact.name == "compiling"
    assert not fact.must_mend

    def fail(level: Level) -> Path:
        raise build.CompileError("no C++ compiler found")

    monkeypatch.setattr(build, "compile_library", fail)
    (fact,) = compile_ops()
    assert fact.must_mend
    assert fact.advice == "no C++ compiler found"


def test_doctor_says_who_set_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive-for-a-test")
    found = {fact.name: fact.value for fact in threads()}
    assert found["OMP_WAIT_POLICY"] == "passive-for-a-test (set by this process)"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    found = {fact.name: fact.value for fact in threads()}
    assert found["OMP_WAIT_POLICY"] == "not set"


def test_doctor_survives_a_torch_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    broken = {finding.section for finding in examine() if not finding.is_fine}
    assert {"torch", "GPU", "toolkit"} <= broken


@pytest.mark.slow
def test_the_demo_runs_to_its_end() -> None:
    result = runner.invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    assert "Io amo programmare" in result.stdout
    assert re.search(r"^32 +\d+", result.stdout, re.MULTILINE)
    assert "toolkit serve" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_a_signal_and_exits_cleanly(model: str, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "toolkit", "serve", model, "--port", "0"]
    command += ["--served-model-name", "a", "--served-model-name", "b", "--api-key", "k"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = ""
        while "Ctrl-C" not in text:
            line = process.stdout.readline()
            assert line, "the server ended before it was ready"
            text += line
        (url,) = re.findall(r"curl (http\S+)/v1", text)
        headers = {"authorization": "Bearer k"}
        models = httpx.get(f"{url}/v1/models", headers=headers).json()["data"]
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    assert [model["id"] for model in models] == ["a", "b"]
    assert "Bearer $TOOLKIT_API_KEY" in text


def test_a_taken_port_is_one_line(model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = runner.invoke(app, ["serve", model, "--port", port])
    assert result.exit_code == 1
    assert f"127.0.0.1:{port} is taken" in result.stderr
