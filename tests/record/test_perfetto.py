"""Traces: what the trace-event format asks of each event, and that the spans are in it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.record.test_spans import mixed_run
from toolkit.record import Record


@pytest.fixture(scope="module")
def record() -> Record:
    record: Record = mixed_run(17).record
    return record


@pytest.fixture(scope="module")
def events(record: Record, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = record.to_perfetto(tmp_path_factory.mktemp("trace") / "run.json")
    found: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return found


def test_every_event_has_what_the_format_asks_for(events: list[dict[str, Any]]):
    for event in events:
        assert event["ph"] in "XCMi"
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ph"] == "M" or event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in "gpt"


def test_time_never_goes_back_and_spans_of_a_track_do_not_overlap(events: list[dict[str, Any]]):
    timed = [event for event in events if event["ph"] != "M"]
    assert [e["ts"] for e in timed] == sorted(e["ts"] for e in timed)
    ends: dict[tuple[int, int], float] = {}
    for event in timed:
        if event["ph"] == "X":
            track = event["pid"], event["tid"]
            assert event["ts"] >= ends.get(track, 0.0) - 1e-3
            ends[track] = event["ts"] + event["dur"]


def test_each_request_is_a_named_track_with_its_spans(record: Record, events: list[dict[str, Any]]):
    names = {
        event["tid"]: event["args"]["name"]
        for event in events
        if event["name"] == "thread_name" and event["pid"] == 2
    }
    assert set(names.values()) == set(record.requests["request_id"])
    spans = record.spans()
    drawn = [event for event in events if event["ph"] == "X" and event["pid"] == 2]
    assert len(drawn) == len(spans)
    for name, own in spans.groupby("request_id"):
        total_us = sum(event["dur"] for event in drawn if names[event["tid"]] == name)
        assert total_us == pytest.approx(1e6 * (own["end_s"] - own["start_s"]).sum(), abs=0.1)


def test_counters_follow_the_steps(record: Record, events: list[dict[str, Any]]):
    used = [e["args"]["used"] for e in events if e["name"] == "KV cache (%)"]
    steps = record.steps
    shares = 100 * steps["blocks_used"] / (steps["blocks_used"] + steps["blocks_free"])
    assert used == pytest.approx(list(shares), abs=1e-3)


def test_a_name_that_ends_with_gz_is_compressed(record: Record, tmp_path: Path):
    path = record.to_perfetto(str(tmp_path / "run.json.gz"))
    with gzip.open(path, "rt") as file:
        assert json.load(file)["traceEvents"]
