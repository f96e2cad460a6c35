"""Hit rates through the real block pool, against counting and against published figures."""

from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.test_eviction import prompts
from toolkit.cache.blocks import FirstIn
from toolkit.errors import InvalidConfig
from toolkit.experiments.hit_rates import EVICTIONS, block_keys, prefix_hit_rate, prefix_hit_rates


def trace(path: Path, *prompts: list[int]) -> Path:
    lines = [
        {"timestamp": 0, "input_length": 512 * len(ids), "output_length": 1, "hash_ids": ids}
        for ids in prompts
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_trace_is_read_from_a_file(tmp_path: Path):
    path = trace(tmp_path / "trace.jsonl", [0, 1, 2], [0, 1, 3], [4], [0, 1, 2])
    assert prefix_hit_rate(path) == 5 / 10
    assert prefix_hit_rate(str(path), num_blocks=3) == 4 / 10
    assert len(block_keys(path)) == 4


@given(prompts())
def test_without_a_limit_every_block_that_was_there_is_found(loads):
    names = list(chain.from_iterable(loads))
    assert prefix_hit_rate(loads) == pytest.approx(1 - len(set(names)) / len(names))


@settings(max_examples=50)
@given(prompts(), st.integers(1, 12))
def test_no_rule_finds_more_than_the_one_that_knows_the_future(loads, num_blocks):
    rates = {rule: prefix_hit_rate(loads, num_blocks, rule) for rule in EVICTIONS}
    assert max(rates.values()) == rates["belady"]


@settings(max_examples=30)
@given(prompts(), st.sampled_from(EVICTIONS))
def test_a_cache_in_which_everything_fits_evicts_nothing(loads, rule):
    num_names = len(set(chain.from_iterable(loads)))
    assert prefix_hit_rate(loads, num_names, rule) == prefix_hit_rate(loads)


def test_of_a_prompt_longer_than_the_cache_only_the_first_blocks_are_kept():
    prompt = [b"a", b"b", b"c", b"d"]
    assert prefix_hit_rate([prompt, prompt], num_blocks=3) == 3 / 8


def test_a_strategy_of_ones_own_is_made_anew_for_each_run():
    loads = [[b"a"], [b"b"], [b"a"], [b"c"], [b"a"]]
    for _ in range(2):
        assert prefix_hit_rate(loads, 2, FirstIn) == prefix_hit_rate(loads, 2, "fifo")


def test_curves_have_a_row_per_rule_and_size():
    loads = [[b"a", b"b"], [b"c"], [b"a", b"b"]]
    table = prefix_hit_rates(loads, [1, 2, None], progress=False)
    assert len(table) == 3 * len(EVICTIONS)
    unlimited = table[table["num_blocks"] == float("inf")]
    assert set(unlimited["hit_rate"]) == {2 / 5}
    one = table[(table["num_blocks"] == 2) & (table["eviction"] == "belady")]
    assert one["hit_rate"].item() == prefix_hit_rate(loads, 2, "belady")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"num_blocks": 0}, "positive"),
        ({"num_blocks": 2.5}, "positive"),
        ({"num_blocks": True}, "positive"),
        ({"num_blocks": 4, "eviction": "random"}, "lru, fifo, lfu, belady"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, says):
    with pytest.raises(InvalidConfig, match=says):
        prefix_hit_rate([[b"a"]], **changed)


DEEP = pytest.param("[" * 100_000, id="nested too deeply")


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"ids": [1]}', '{"hash_ids": 3}', '{"hash_ids": ["x"]}', DEEP],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str):
    path = trace(tmp_path / "trace.jsonl", [1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InvalidConfig, match=r"trace\.jsonl, line 2"):
        prefix_hit_rate(path)


def test_an_empty_line_is_no_request(tmp_path: Path):
    path = trace(tmp_path / "trace.jsonl", [1], [1])
    path.write_text(path.read_text().replace("\n", "\n\n"))
    assert prefix_hit_rate(path) == 0.5


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "holds no requests"), (b"\xff\xfe\x00\x80", "cannot be read")]
)
def test_a_file_without_requests_is_refused(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig, match=says):
        prefix_hit_rate(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InvalidConfig, match=r"nowhere\.jsonl"):
        prefix_hit_rate(tmp_path / "nowhere.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_blocks", "percent"), [(None, 36.6), (1_000, 4.4), (10_000, 21.1), (50_000, 35.5)]
)
def test_the_published_conversation_trace_has_the_published_hit_rates(num_blocks, percent):
    path = Path(os.environ.get("TOOLKIT_TRACES", "")) / "mooncake_conversation.jsonl"
    if not path.is_file():
        pytest.skip("needs the Mooncake trace: TOOLKIT_TRACES names no folder that has it")
    assert 100 * prefix_hit_rate(path, num_blocks) == pytest.approx(percent, abs=0.3)
