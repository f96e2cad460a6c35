"""What the command line writes is what it was given."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from toolkit.cli import app
from toolkit.cli.console import write


def test_a_models_text_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    write("a :x: is no picture, [bold] no style")
    assert capsys.readouterr().out == "a :x: is no picture, [bold] no style\n"


def test_an_errors_text_is_written_as_it_is() -> None:
    done = CliRunner().invoke(app, ["bench", "serve", "host:x:", "--num-prompts", "1"])
    assert done.exit_code == 1
    assert "host:x:" in done.stderr
