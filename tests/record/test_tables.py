"""The six tables: their columns, what is in them at which level, and how they are read in parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.builders import make_engine, params
from toolkit.engine import Engine
from toolkit.errors import InvalidConfig, InvalidParameter, RecordError
from toolkit.record import Record
from toolkit.record.log import Log
from toolkit.record.schema import SCHEMA, TAGS

# As they were promised. Outside checks and saved notebooks ask for these names in this order.
PROMISED = {
    "steps": """step, start_s, duration_s, schedule_s, prepare_s, forward_s, sample_s, update_s,
        host_gap_s, num_requests, num_tokens, num_prompt_tokens, num_decode_tokens, token_budget,
        num_running, num_waiting, num_admitted, num_preempted, num_finished, num_cached_tokens,
        num_recomputed_tokens, context_tokens, attention_work, blocks_used, blocks_cached,
        blocks_free, num_evicted, limited_by, policy, slow_path""",
    "chunks": "step, request_id, start, end, is_recomputed",
    "requests": """request_id, parent_id, sample_index, api_id, client_request_id, endpoint, status,
        finish_reason, error, priority, seed, tags.*, arrival_s, queued_s, first_scheduled_s,
        first_token_s, last_token_s, finished_s, num_prompt_tokens, num_cached_tokens,
        num_output_tokens, max_tokens, num_steps, num_preemptions, num_recomputed_tokens,
        peak_blocks, tokenize_s, wait_blocks_s, wait_budget_s, wait_seqs_s, wait_policy_s,
        wait_grammar_s, wait_host_s, prefill_s, decode_s, preempted_s, preempted_before_first_s,
        emit_s, ttft_s, tpot_s, itl_p50_s, itl_p99_s, itl_max_s, e2e_s""",
    "tokens": """request_id, index, position, step, token_id, text, sampled_s, sent_s, itl_s,
        logprob_raw, logprob_processed, rank_raw, entropy_nats, source""",
    "blocks": """block_id, request_id, hash, start_step, end_step, start_s, end_s, how, end_why,
        num_filled, num_hits""",
    "events": "time_s, step, kind, request_id, block_id, detail",
}


def busy_engine(level: str = "blocks") -> Engine:
    """Two tenants, shared prefixes, two samples each for one of them, preemptions."""
    engine = make_engine(recorder=Record(level=level), num_blocks=8)
    for i in range(4):
        tags = {"tenant": "ab"[i % 2]}
        engine.add([1, 2, 3, 4, 5, i], params(6, n=1 + i % 2), tags=tags, priority=i)
    return engine


@pytest.fixture
def record() -> Record:
    engine = busy_engine()
    engine.run_until_idle()
    record: Record = engine.record
    return record


@pytest.mark.parametrize("table", PROMISED)
def test_the_columns_are_those_that_were_promised_in_their_order(record: Record, table: str):
    promised = [name.strip() for name in PROMISED[table].split(",")]
    assert [column.name for column in SCHEMA[table]] == promised
    seen = re.sub(r"tags\.\w+", TAGS, ",".join(getattr(record, table).columns)).split(",")
    assert seen == promised
    assert [column.replace("tags.tenant", TAGS) for column in seen] == promised


@pytest.mark.parametrize("table", PROMISED)
def test_the_types_are_those_of_the_schema_filled_or_empty(record: Record, table: str):
    filled, empty = getattr(record, table), getattr(Record(), table)
    for column in SCHEMA[table]:
        if column.name != TAGS:
            expected = "object" if column.dtype == "str" else column.dtype
            assert str(filled[column.name].dtype) == expected, column.name
            if column.name != "seed":  # the narrowest that holds all of them
                assert str(empty[column.name].dtype) == expected, column.name


def test_the_schema_tells_every_column_its_unit_and_meaning(record: Record):
    schema = record.schema()
    assert list(schema) == ["table", "column", "dtype", "unit", "meaning"]
    assert len(schema) == sum(map(len, SCHEMA.values()))
    assert schema["meaning"].str.len().min() > 3
    seconds = schema[schema["column"].str.endswith("_s")]
    assert set(seconds["unit"]) == {"s"}


@pytest.mark.parametrize(
    ("level", "tables"),
    [
        ("requests", {"steps", "requests", "events"}),
        ("tokens", {"steps", "requests", "events", "chunks", "tokens"}),
        ("blocks", set(PROMISED)),
        ("explain", set(PROMISED)),
    ],
)
def test_a_level_says_which_tables_are_kept(level: str, tables: set[str]):
    engine = busy_engine(level)
    engine.run_until_idle()
    record = engine.record
    assert {table for table in record.tables if record.num_rows(table)} == tables
    assert {table for table in record.tables if len(getattr(record, table))} == tables
    about_blocks = record.events["kind"].str.startswith("block_")
    assert about_blocks.any() == ("blocks" in tables)
    assert record.requests["itl_max_s"].notna().all()


def test_a_level_can_change_while_the_engine_runs():
    engine = busy_engine("requests")
    engine.step()
    engine.record.level = "blocks"
    engine.step()
    engine.record.level = "requests"
    engine.run_until_idle()
    assert set(engine.record.tokens["step"]) == set(engine.record.chunks["step"]) == {1}
    assert set(engine.record.blocks["start_step"]) == {1}
    with pytest.raises(InvalidConfig, match="requests, tokens, blocks, explain"):
        engine.record.level = "all"


def test_tables_agree_with_one_another(record: Record):
    steps, chunks = record.steps.set_index("step"), record.chunks
    by_step = chunks.groupby("step")
    assert (by_step.size() == steps["num_requests"]).all()
    sizes = chunks["end"] - chunks["start"]
    assert (sizes.groupby(chunks["step"]).sum() == steps["num_tokens"]).all()
    assert (by_step["end"].sum() == steps["context_tokens"]).all()
    work = (sizes * (chunks["start"] + sizes / 2)).groupby(chunks["step"]).sum()
    assert np.allclose(work, steps["attention_work"])
    assert ((steps["num_prompt_tokens"] + steps["num_decode_tokens"]) == steps["num_tokens"]).all()
    again = chunks[chunks["is_recomputed"]]
    assert set(again["step"]) == set(steps.index[steps["num_recomputed_tokens"] > 0])
    requests, tokens = record.requests.set_index("request_id"), record.tokens
    assert (tokens.groupby("request_id").size() == requests["num_output_tokens"].sort_index()).all()
    assert (chunks.groupby("request_id").size() == requests["num_steps"].sort_index()).all()
    first = tokens.groupby("request_id")["sent_s"].first()
    assert (first == requests["first_token_s"].sort_index()).all()
    longest = tokens.groupby("request_id")["itl_s"].max()
    assert np.allclose(longest, requests["itl_max_s"].sort_index())
    median = tokens.groupby("request_id")["itl_s"].median()
    assert np.allclose(median, requests["itl_p50_s"].sort_index())
    high = tokens.groupby("request_id")["itl_s"].quantile(0.99)
    assert np.allclose(high, requests["itl_p99_s"].sort_index())
    preempted = record.events[record.events["kind"] == "preempted"]
    assert len(preempted) == steps["num_preempted"].sum() == requests["num_preemptions"].sum() > 0


def test_prompt_and_decode_tokens_are_told_apart_by_position(record: Record):
    prompts = record.requests.set_index("request_id")["num_prompt_tokens"]
    chunks = record.chunks
    known = chunks["request_id"].map(prompts)
    of_prompt = (np.minimum(chunks["end"], known) - chunks["start"]).clip(lower=0)
    counted = record.steps.set_index("step")["num_prompt_tokens"]
    assert (of_prompt.groupby(chunks["step"]).sum() == counted).all()


def test_new_rows_come_by_cursor_and_the_last_ones_by_tail():
    engine = busy_engine()
    record = engine.record
    cursors = dict.fromkeys(("steps", "chunks", "tokens", "events"), 0)
    parts: dict[str, list[pd.DataFrame]] = {table: [] for table in cursors}
    while engine.scheduler.has_work:
        engine.step()
        for table, cursor in cursors.items():
            new, cursors[table] = record.since(table, cursor)
            parts[table].append(new)
    for table, new in parts.items():
        whole = getattr(record, table)
        pd.testing.assert_frame_equal(pd.concat(new, ignore_index=True), whole)
        last = record.tail(table, 3).reset_index(drop=True)
        pd.testing.assert_frame_equal(last, whole.tail(3).reset_index(drop=True))
        assert len(record.since(table, cursors[table])[0]) == 0
    assert len(record.tail("requests", 2)) == 2
    assert len(record.tail("requests", 0)) == len(record.tail("tokens", 0)) == 0
    with pytest.raises(RecordError, match="steps"):
        record.since("requests", 0)
    with pytest.raises(RecordError, match="no table 'step'"):
        record.tail("step", 1)


def test_the_oldest_rows_go_first_and_are_counted(monkeypatch: pytest.MonkeyPatch):
    small = dict.fromkeys(PROMISED, 40)
    monkeypatch.setattr("toolkit.record.layout.MAX_ROWS", small)
    engine = busy_engine()
    for i in range(60):
        engine.add([i % 40, 2, 3], params(3))
    engine.run_until_idle()
    record = engine.record
    for table in PROMISED:
        kept, dropped = record.num_rows(table), record.num_dropped[table]
        assert len(getattr(record, table)) == kept
        if dropped:
            assert 40 - 2 <= kept <= 40 + 2
    assert record.num_dropped["tokens"] + record.num_rows("tokens") == 60 * 3 + 36
    assert record.requests["request_id"].iloc[-1] == "req-63"
    assert record.tokens["step"].iloc[-1] == record.steps["step"].iloc[-1]
    assert f"{record.num_dropped['tokens']} tokens" in repr(record)
    with pytest.raises(RecordError, match="dropped"):
        record.blocks_at(3)


def test_how_many_rows_are_kept_can_be_chosen_by_table():
    engine = make_engine(recorder=Record(max_rows={"tokens": 20}))
    for i in range(30):
        engine.add([i, 2, 3], params(3))
    engine.run_until_idle()
    assert engine.record.num_rows("tokens") <= 21
    assert engine.record.num_dropped["tokens"] == 90 - engine.record.num_rows("tokens")
    assert engine.record.num_dropped["requests"] == engine.record.num_dropped["steps"] == 0


@pytest.mark.parametrize("wrong", [{"token": 9}, {"tokens": 0}])
def test_bounds_of_no_sense_are_refused(wrong: dict[str, int]):
    with pytest.raises(InvalidConfig, match="max_rows"):
        Record(max_rows=wrong)


def test_names_go_with_the_rows_that_used_them():
    log = Log({"name": "n"}, max_rows=20)
    for i in range(1_000):
        log.append((f"name {i}",))
    assert sum(len(segment.codes) for segment in log._segments) <= 21
    assert log.read()["name"][-1] == "name 999"


def test_parts_are_frozen_and_hold_what_belongs_together(record: Record):
    part = record.where(tenant="a")
    assert set(part.requests["tags.tenant"]) == {"a"}
    names = set(part.requests["request_id"])
    assert set(part.tokens["request_id"]) == set(part.chunks["request_id"]) == names
    assert set(part.blocks["request_id"]) == names
    assert len(part.steps) == len(record.steps)
    assert set(record.where(request_id=["req-0", "req-2"]).requests["request_id"]) == names
    assert record.where(tenant="a", priority=2).requests["request_id"].tolist() == ["req-2"]
    with pytest.raises(RecordError, match="tenent"):
        record.where(tenent="a")
    middle = record.between(0.03, 0.06)
    assert middle.steps["step"].tolist() == [3, 4, 5]
    assert set(middle.chunks["step"]) == {3, 4, 5}
    assert not middle.is_live
    assert middle.config == record.config


def test_a_tag_does_not_hide_the_column_of_its_name():
    engine = make_engine(recorder=Record())
    engine.add([1, 2], params(2))
    engine.add([3, 4], params(2), tags={"status": "open", "added_step": "mine"})
    engine.run_until_idle()
    record = engine.record
    assert len(record.where(status="finished").requests) == 2
    assert record.where(**{"tags.status": "open"}).requests["request_id"].tolist() == ["req-1"]
    assert len(record.where(added_step="mine").requests) == 1  # not a column of the table
    with pytest.raises(RecordError, match="no such column"):
        record.where(**{"tags.*": "open"})


def test_arguments_that_cannot_be_meant_are_named(record: Record):
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: record.between("a", "b"), "start_s"),  # type: ignore[arg-type]
        (lambda: record.between(float("nan"), 3), "start_s"),
        (lambda: record.between(0, None), "end_s"),  # type: ignore[arg-type]
        (lambda: record.blocks_at("x"), "step's number"),  # type: ignore[arg-type]
        (lambda: record.tail("steps", "x"), "whole one"),  # type: ignore[arg-type]
        (lambda: record.tail("requests", -1), "whole one"),
    ]
    for call, says in calls:
        with pytest.raises(InvalidParameter, match=says):
            call()
    with pytest.raises(InvalidParameter, match="status"):
        record.where(status=pd.DataFrame([[1, 2]]))
    seeds = record.requests["seed"].to_numpy()
    assert len(record.where(seed=seeds).requests) == len(record.requests)


def test_a_frozen_copy_does_not_change_when_the_engine_goes_on():
    engine = busy_engine()
    engine.step()
    frozen = engine.record.freeze()
    before = {table: getattr(frozen, table) for table in PROMISED}
    engine.run_until_idle()
    for table, rows in before.items():
        pd.testing.assert_frame_equal(getattr(frozen, table), rows)
        assert len(getattr(engine.record, table)) >= len(rows)


def test_a_stretch_of_code_gets_a_record_of_its_own():
    engine = busy_engine()
    engine.step()
    with engine.record.during("warm") as warm:
        engine.step()
        engine.step()
    engine.run_until_idle()
    assert warm.name == "warm"
    assert warm.steps["step"].tolist() == [1, 2]
    assert "'warm'" in repr(warm)


def test_events_say_what_happened_to_whom():
    engine = busy_engine()
    engine.set_policy("priority")
    with pytest.raises(ValueError, match="empty"):
        engine.add([], params(1))
    gone = engine.add([9], params(1))
    engine.abort(gone)
    with engine.paused():
        pass
    engine.run_until_idle()
    events = engine.record.events
    told = dict(zip(events["kind"], events["detail"], strict=True))
    assert told["policy_changed"] == "fcfs/priority"
    assert "empty" in told["rejected"]
    assert told["aborted"] == "user"
    assert re.fullmatch(r"blocks/req-\d(\.1)?", told["preempted"])
    assert told["finished"] == "length"
    kinds = set(events["kind"])
    assert {"added", "waited", "resumed", "prefix_hit", "paused", "block_taken"} <= kinds
    promised = " ".join(c.meaning for c in SCHEMA["events"] if c.name == "kind")
    assert all(kind.removeprefix("block") in promised for kind in kinds)


def test_settings_and_versions_are_at_hand(record: Record):
    assert record.config["num_blocks"] == record.num_blocks == 8
    assert record.config["block_size"] == record.block_size == 4
    assert record.config["policy"] == "fcfs"
    assert "numpy" in record.environment["versions"]
    assert Record(describe=lambda: {"model": "m"}).environment["model"] == "m"


def test_integers_of_any_size_do_no_harm():
    engine = make_engine(recorder=Record())
    engine.add([1], params(1, seed=-5), priority=1 << 70)
    engine.add([1], params(1, seed=1 << 63), priority=-3)
    engine.run_until_idle()
    requests = engine.record.requests
    assert requests["priority"].tolist() == [1 << 70, -3]
    assert requests["seed"].tolist() == [-5, 1 << 63]
    assert len(engine.record.tokens) == 2


def test_a_record_is_small_and_says_so(tmp_path: Path, record: Record):
    assert repr(record).startswith("Record(live, level='blocks'; 10 steps, 36 chunks, 6 requests")
