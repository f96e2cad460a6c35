"""What a panel offers to copy runs as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.address import Address
from toolkit.server.snippets import snippets

PYTHON = ("openai", "LangChain")


def printed(program: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # each imports a client
@pytest.mark.parametrize("name", PYTHON)
def test_a_program_prints_an_answer(server: Server, name: str) -> None:
    assert printed(server.snippets[name])


@pytest.mark.slow
def test_a_program_for_a_unix_socket_with_a_key_runs_too(llm: LLM, tmp_path: Path) -> None:
    with serve(llm, uds=str(tmp_path / "socket"), api_key="secret") as server:
        assert "secret" not in "".join(server.snippets.values())
        assert printed(server.snippets["openai"], TOOLKIT_API_KEY="secret")


def test_a_program_trusts_the_servers_own_certificate() -> None:
    address = Address(host="127.0.0.1", port=1, certfile="/tmp/cert.pem")
    for name in PYTHON:
        program = snippets(address, "m")[name]
        compile(program, name, "exec")
        assert "verify='/tmp/cert.pem'" in program


def test_curl_is_the_command_that_the_fallback_shows(server: Server) -> None:
    assert server.snippets["curl"] == server.address.curl(server.model_name)
