"""The same tokens on machines with less: no compiler, older instructions, ops not compiled yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import LEVEL_VARIABLE, LEVELS, cpu_flags

SCRIPT = """
import json, sys
from toolkit import LLM, SamplingParams
prompts = ["The red cat", "Hello", "One two three", "In the morning"]
with LLM(dtype="float32", kernels=sys.argv[1]) as llm:
    ops = llm.engine.runner.decoder.ops
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    outputs = llm.generate(prompts * 3, params, progress=False)
    print(json.dumps([ops.name, ops.level, [list(o.outputs[0].token_ids) for o in outputs]]))
"""


def run(kernels: str, **environment: str) -> tuple[str, str, list[list[int]], str]:
    """Generate in a process of its own: name and level of its ops, tokens, standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kernels],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, level, tokens = json.loads(done.stdout.splitlines()[-1])
    return name, level, tokens, done.stderr


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return run("reference")[2]


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_every_instruction_set_gives_the_same_tokens(level, expected: list[list[int]]):
    if not level.cpu_flags <= cpu_flags():
        pytest.skip(f"this processor has no {level.name}")
    try:
        compile_library(level)
    except CompileError as error:
        pytest.skip(f"no C++ ops: {error}")
    name, used, tokens, _ = run("auto", **{LEVEL_VARIABLE: level.name})
    assert (name, used) == ("cpu", level.name)
    assert tokens == expected


@pytest.mark.slow
def test_a_machine_without_a_compiler_says_so_in_one_line(
    tmp_path: Path, expected: list[list[int]]
):
    empty = tmp_path / "bin"
    empty.mkdir()
    name, _, tokens, said = run("auto", PATH=str(empty), CXX="", XDG_CACHE_HOME=str(tmp_path))
    assert name == "torch"
    assert tokens == expected
    notices = [line for line in said.splitlines() if "compiler" in line]
    assert len(notices) == 1
    assert "slower torch ops" in notices[0]


@pytest.mark.slow
def test_the_first_engine_does_not_wait_for_the_compiler(tmp_path: Path, expected: list[list[int]]):
    name, _, tokens, said = run("auto", XDG_CACHE_HOME=str(tmp_path))
    assert name == "torch"
    assert tokens == expected
    assert sum("slower torch ops" in line for line in said.splitlines()) == 1


@pytest.mark.slow
def test_a_level_that_the_machine_lacks_is_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "auto"],
        env={**os.environ, LEVEL_VARIABLE: "avx1024"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"{LEVEL_VARIABLE}='avx1024': this machine has" in done.stderr.splitlines()[-1]
