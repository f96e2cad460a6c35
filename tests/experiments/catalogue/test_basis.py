"""What a kept result rests on changes when the traces at hand do."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.experiments.catalogue.basis import TRACES_VARIABLE, basis


def test_without_traces_it_is_the_sources_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(TRACES_VARIABLE, raising=False)
    alone = basis()
    assert alone["traces"] == ""
    assert len(alone["sources"]) == 64
    monkeypatch.setenv(TRACES_VARIABLE, str(tmp_path / "nowhere"))
    assert basis() == alone


def test_a_trace_that_comes_or_changes_is_another_basis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(TRACES_VARIABLE, str(tmp_path))
    found = [basis()["traces"]]
    for text in ("a", "ab"):
        (tmp_path / "trace.jsonl").write_text(text)
        found.append(basis()["traces"])
    assert len(set(found)) == 3
    assert basis()["traces"] == found[-1]
