"""Magics, in a real shell: what they bind, what they return, what they say when it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from tests.builders import make_engine, params
from toolkit import LLM
from toolkit.record import Record


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "toolkit")
    yield shell
    shell.reset()


@pytest.fixture
def engine(shell: InteractiveShell) -> Any:
    engine = make_engine(recorder=Record(), max_num_seqs=1)
    shell.push({"engine": engine, "params": params})
    return engine


ASK = (
    "for prompt in ([1, 2, 3], [4, 5]):\n    engine.add(prompt, params(3))\nengine.run_until_idle()"
)


def test_record_binds_what_the_cell_did_and_nothing_else(shell: InteractiveShell, engine: Any):
    engine.add([7], params(1))
    engine.run_until_idle()
    engine.clock.advance(0.01)
    record = shell.run_cell_magic("record", "mine --level blocks", ASK)
    assert shell.user_ns["mine"] is record
    assert list(record.requests["request_id"]) == ["req-1", "req-2"]
    assert not record.is_live
    assert engine.record.level == "tokens"


def test_bench_shows_the_metrics_of_the_cell(shell: InteractiveShell, engine: Any):
    found = shell.run_cell_magic("bench", "run --slo ttft_s=0.02,e2e_s=9 --slo tpot_s=1", ASK)
    assert found.loc["finished", "num"] == 2
    assert found.loc["goodput_share", "num"] == 1
    assert len(shell.user_ns["run"].requests) == 2


def test_compare_runs_the_cell_again_and_says_what_changed(shell: InteractiveShell, engine: Any):
    shell.run_cell_magic("record", "before", ASK)
    other = make_engine(recorder=Record(), max_num_seqs=8)
    shell.push({"engine": other})
    found = shell.run_cell_magic("compare", "before --on engine --name after", ASK)
    assert "waited 3 steps less: 3 for seqs" in set(found.table["why"])
    assert len(shell.user_ns["after"].requests) == 2


def test_a_cell_that_fails_binds_nothing(shell: InteractiveShell, engine: Any, capsys: Any):
    assert shell.run_cell_magic("record", "mine", "1 / 0") is None
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert "mine" not in shell.user_ns


@pytest.mark.parametrize(
    ("magic", "line", "cell", "says"),
    [
        ("record", "not-a-name", "pass", "name of a variable"),
        ("record", "mine --on nobody", "pass", "no such variable"),
        ("record", "mine --on params", "pass", "no LLM, engine or server"),
        ("record", "mine --level all", "pass", "is not one of"),
        ("record", "mine", "await thing", "top-level await"),
        ("bench", "--slo fast", "pass", "name=value"),
        ("bench", "--slo latency=1", ASK, "itl_max_s"),
        ("bench", "--slo ttft=0.5", "1 / 0", "itl_max_s"),
        ("bench", "--slo ttft_s=abc", "1 / 0", "number of seconds"),
        ("bench", "--warmup -1", "1 / 0", "0 or more"),
        ("bench", "--by nope", "1 / 0", r"tags\.nope"),
        ("record", "class", "1 / 0", "name of a variable"),
        ("compare", "nothing", "pass", "%%record nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    shell: InteractiveShell, engine: Any, magic: str, line: str, cell: str, says: str
):
    with pytest.raises(UsageError, match=says):
        shell.run_cell_magic(magic, line, cell)


def test_with_several_engines_one_must_be_named(shell: InteractiveShell, engine: Any):
    shell.push({"other": make_engine(recorder=Record())})
    with pytest.raises(UsageError, match="--on engine or --on other"):
        shell.run_cell_magic("record", "mine", "pass")
    assert shell.run_cell_magic("record", "mine --on other", "pass") is not None


def test_without_an_engine_it_says_so(shell: InteractiveShell):
    with pytest.raises(UsageError, match="make one in a cell before"):
        shell.run_cell_magic("record", "mine", "pass")


def test_serve_refuses_to_replace_a_variable_of_yours(shell: InteractiveShell):
    shell.push({"server": 3})
    with pytest.raises(UsageError, match="--name"):
        shell.run_line_magic("serve", "--port 0")


@pytest.mark.parametrize(
    "line",
    [
        "MODEL --port 0 max_num_seqs=8",
        "--port 0 MODEL max_num_seqs=8",
        "max_num_seqs=8 --port 0 MODEL",
        "MODEL max_num_seqs=8 --port 0",
    ],
)
def test_serve_takes_its_words_in_any_order(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, line: str
):
    asked: list[Any] = []
    monkeypatch.setattr(
        "toolkit.serve", lambda model, **options: asked.append((model, options)) or Record()
    )
    shell.run_line_magic("serve", line)
    ((model, options),) = asked
    assert (model, options["port"], options["max_num_seqs"]) == ("MODEL", 0, 8)


@pytest.mark.slow
def test_serve_takes_the_llm_of_the_notebook_so_that_the_other_magics_find_one_engine(
    shell: InteractiveShell,
):
    with LLM(num_kv_blocks=64, max_model_len=256) as llm:
        shell.push({"llm": llm})
        server = shell.run_line_magic("serve", "--port 0")
        try:
            assert server.engine is llm.engine
            cell = "llm.generate('Hi', progress=False)"
            assert len(shell.run_cell_magic("record", "mine", cell).requests) == 1
            with LLM(num_kv_blocks=64, max_model_len=256) as other:
                shell.push({"other": other})
                with pytest.raises(UsageError, match="%serve llm or %serve other"):
                    shell.run_line_magic("serve", "--port 0")
            assert server.is_running
        finally:
            server.stop()


@pytest.mark.slow
def test_serve_binds_a_server_and_a_second_one_replaces_it(shell: InteractiveShell):
    first = shell.run_line_magic("serve", "--port 0 max_num_seqs=2 num_kv_blocks=64")
    try:
        assert shell.user_ns["server"] is first
        assert first.engine.config.scheduler.max_num_seqs == 2
        second = shell.run_line_magic("serve", "--port 0 num_kv_blocks=64")
        assert not first.is_running
        record = shell.run_cell_magic(
            "record",
            "calls",
            "client = server.client()\n"
            "client.completions.create(model=server.model_name, prompt='Hi', max_tokens=2)",
        )
        assert len(record.requests) == 1
    finally:
        shell.user_ns["server"].stop()
    assert not second.is_running
