"""Our own server passes its own suite; what it does not do it refuses clearly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from toolkit.cli import app
from toolkit.conformance import CHECKS, run
from toolkit.errors import ToolkitError
from toolkit.server import Server, serve

runner = CliRunner()
# No text is filled in between two others, and this server is not asked with a key.
NOT_DONE_HERE = {"completions/suffix", "errors/wrong_key"}


@pytest.fixture(params=["random weights", "bundled model"])
def either(request: pytest.FixtureRequest, server: Server) -> Iterator[Server]:
    if request.param == "random weights":
        yield server
        return
    with serve(port=0, max_num_seqs=8) as bundled:
        yield bundled


@pytest.mark.slow
def test_our_server_passes_every_point(either: Server) -> None:
    server = either
    report = run(server.url)
    assert report.failures == (), repr(report)
    assert {finding.id for finding in report.skipped} <= NOT_DONE_HERE, repr(report)
    assert len(report.findings) == len(CHECKS)
    server.engine.scheduler.check()
    assert server.engine.cache.pool.num_used == 0


def test_a_part_of_the_suite_can_be_run(server: Server) -> None:
    report = run(f"{server.url}/v1/", only="streams/*")
    assert {finding.id.partition("/")[0] for finding in report.findings} == {"streams"}
    assert report
    (one,) = run(server.url, only="role_first").findings
    assert (one.id, one.verdict) == ("streams/role_first", "pass")


def test_the_report_is_a_table_in_a_cell(server: Server) -> None:
    report = run(server.url, only="models/*")
    assert list(report.table["id"]) == [finding.id for finding in report.findings]
    assert {"level", "verdict", "what", "why", "evidence"} <= set(report.table.columns)
    assert "models/list" in report._repr_html_()
    assert "pass" in repr(report)
    assert json.loads(report.to_json())["passed"] is True


def test_ids_are_unique_and_every_point_says_who_breaks() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS) > 100
    assert all(check.what and check.why for check in CHECKS)


def test_a_server_with_a_key_is_checked_with_it(server: Server) -> None:
    with serve(server.llm, port=0, served_model_name="locked", api_key="secret") as locked:
        report = run(locked.url, api_key="secret", only="errors/*_key")
        verdicts = {finding.id: finding.verdict for finding in report.findings}
        assert verdicts == {"errors/wrong_key": "pass", "errors/any_key": "not supported"}
        with pytest.raises(ToolkitError, match=r"status 401.*api_key="):
            run(locked.url)


def test_nobody_there_is_an_error_in_one_line() -> None:
    for model in (None, "known"):
        with pytest.raises(ToolkitError, match="nobody answers at http"):
            run("127.0.0.1:9/v1", model=model)


def test_a_pattern_that_matches_nothing_lists_the_topics(server: Server) -> None:
    with pytest.raises(ToolkitError, match=r"streams/\*"):
        run(server.url, only="nonsense")


def test_the_command_shows_a_table_and_writes_the_findings(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    result = runner.invoke(
        app, ["conformance", server.url, "--only", "models/*", "--json", str(path)]
    )
    assert result.exit_code == 0
    assert "models/list" in result.stdout
    assert json.loads(path.read_text())["model"] == "tiny"
