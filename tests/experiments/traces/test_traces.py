"""Reading and writing traces: small files of each format, whole round trips, clear refusals."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments import (
    AtOnce,
    ChatTurns,
    Constant,
    Content,
    Corpus,
    Fixed,
    Poisson,
    RandomTokens,
    SharedPrefix,
    ShareGPT,
    Uniform,
    Workload,
)
from toolkit.experiments.traces import FORMATS
from toolkit.experiments.workloads.columns import Columns
from toolkit.experiments.workloads.randomness import Array

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:46.6805900,5,0
2023-11-16 18:16:47.0000000,879,55
"""
MOONCAKE = [
    {"timestamp": 1000, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 3500, "input_length": 600, "output_length": 7, "hash_ids": [0, 3]},
]
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,87,0,87,API log
118.5,GPT-4,417,276,693,API log
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, format: str, **options: Any) -> Workload:
    return Workload.from_trace(path, format=format, **options)


def rows(workload: Workload) -> list[list[float]]:
    return workload.table[["due_s", "num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist()


def test_azure_times_keep_their_seven_digits_and_failed_calls_are_left_out(tmp_path: Path) -> None:
    w = read(write(tmp_path, AZURE), "azure")
    assert rows(w) == [
        [0.0, 374, 44],
        [pytest.approx(4.314579, abs=1e-9), 396, 109],
        [pytest.approx(60.31941, abs=1e-9), 879, 55],
    ]
    assert "1 rows without tokens in or out left out" in repr(w)
    assert w.rate == pytest.approx(2 / 60.31941)


def test_azure_times_of_2024_have_a_zone(tmp_path: Path) -> None:
    text = AZURE.replace("46.6805900,374", "46.680590+00:00,374").replace("50.9951690", "50+00:00")
    assert read(write(tmp_path, text), "azure").table.due_s[1] == pytest.approx(3.31941)


def test_mooncake_prompts_share_the_blocks_that_their_ids_say(tmp_path: Path) -> None:
    w = read(write(tmp_path, "\n".join(map(json.dumps, MOONCAKE)) + "\n"), "mooncake")
    assert rows(w) == [[0.0, 1030, 5], [2.5, 600, 7]]
    first, second = (arrival.block_keys for arrival in w.arrivals())
    assert (len(first), len(second)) == (2, 1)  # full blocks
    assert first[0] == second[0]
    a, b = (w.prompt_token_ids(k, 1000) for k in range(2))
    assert a[:512] == b[:512]
    assert a[512:600] != b[512:600]
    assert w.describe().value.shared_prompt_share == pytest.approx(512 / 1630)


def test_requests_out_of_order_are_put_in_order_with_their_blocks(tmp_path: Path) -> None:
    lines = [{**MOONCAKE[0], "timestamp": 9000}, MOONCAKE[1]]
    w = read(write(tmp_path, "\n".join(map(json.dumps, lines))), "mooncake")
    assert rows(w) == [[0.0, 600, 7], [5.5, 1030, 5]]
    assert w.content.ids[0].tolist() == [0, 3]  # type: ignore[attr-defined]


def test_burstgpt_keeps_model_and_kind_as_tags(tmp_path: Path) -> None:
    w = read(write(tmp_path, BURST), "burstgpt")
    assert rows(w) == [[0, 472, 18], [113.5, 417, 276]]
    assert w.table["tags.model"].tolist() == ["ChatGPT", "GPT-4"]
    assert w.table["tags.log_type"].tolist() == ["Conversation log", "API log"]
    assert "tags.session" not in w.table


def test_sharegpt_is_counted_by_a_tokenizer_and_filtered_as_vllm_does(tmp_path: Path) -> None:
    def talk(*texts: str) -> dict[str, Any]:
        return {"conversations": [{"from": "human", "value": text} for text in texts]}

    long = "a " * 1025
    entries = [
        talk("one two three four", "a b c d e"),
        talk("too short", "a b c d"),
        talk("no answer at all"),
        talk(long, "a b c d"),
        talk("a b c d e f", long + long),
        talk("a b c d e f", "g h i j", "k"),
    ]
    path = write(tmp_path, json.dumps(entries))

    def count(text: str) -> list[int]:
        return [len(word) for word in text.split()]

    w = read(path, "sharegpt", tokenizer=count)
    assert rows(w) == [[0, 4, 5], [0, 6, 4]]
    assert w.prompt_token_ids(0, 99) == (3, 3, 5, 4)
    assert "4 conversations too short or too long left out" in repr(w)
    assert read(path, "sharegpt", tokenizer=count, arrivals=Constant(2.0)).rate == 2.0
    with pytest.raises(InvalidConfig, match="tokenizer="):
        read(path, "sharegpt")


def test_vidur_files_go_out_and_come_back(tmp_path: Path) -> None:
    w = Workload(Poisson(2.0), ShareGPT(), num_requests=20)
    path = tmp_path / "vidur.csv"
    w.to_csv(path, format="vidur")
    assert path.read_text().startswith("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,")
    assert rows(read(path, "vidur")) == rows(w)
    chats = Workload(AtOnce(), Fixed(2, 2), num_requests=4, content=ChatTurns(2))
    with pytest.raises(InvalidConfig, match="follow one another"):
        chats.to_csv(path, format="vidur")


def test_a_vidur_file_of_lengths_alone_is_all_at_once(tmp_path: Path) -> None:
    text = "num_prefill_tokens,num_decode_tokens,pd_ratio\n10,2,5.0\n8.0,4.0,2.0\n"
    assert rows(read(write(tmp_path, text), "vidur")) == [[0, 10, 2], [0, 8, 4]]


CONTENTS: st.SearchStrategy[Content] = st.one_of(
    st.just(RandomTokens()),
    st.builds(SharedPrefix, st.integers(1, 9), st.integers(1, 3)),
    st.builds(ChatTurns, st.integers(1, 4), st.floats(0, 2)),
)
TAG = st.one_of(st.text(max_size=5), st.integers(), st.floats(allow_nan=False), st.none())


@settings(max_examples=25)
@given(content=CONTENTS, seed=st.integers(0, 9), tag=TAG, rate=st.floats(0.01, 1e3))
def test_the_toolkits_csv_keeps_a_workload_whole(
    tmp_path_factory: pytest.TempPathFactory, content: Content, seed: int, tag: Any, rate: float
) -> None:
    w = Workload(
        Poisson(rate),
        Uniform((1, 9), (1, 9)),
        num_requests=6,
        seed=seed,
        content=content,
        tags={"t": tag, "n": [1, 2.5, "a,b\n"]},
        priority=[0, -3],
    )
    path = tmp_path_factory.getbasetemp() / "w.csv"
    w.to_csv(path)
    again = read(path, "toolkit")
    assert again.fingerprint == w.fingerprint
    pd.testing.assert_frame_equal(again.table, w.table)
    for k in range(6):
        assert again.prompt_token_ids(k, 500) == w.prompt_token_ids(k, 500)
    assert again.with_seed(seed).fingerprint == w.fingerprint
    assert read(path, "toolkit", num_requests=2).fingerprint == w.head(2).fingerprint


def test_given_tokens_and_blocks_come_back_too(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    given_ = Workload.from_prompts([[1, 2, 3], [4]], [5, 6])
    given_.to_csv(path)
    assert read(path, "toolkit").fingerprint == given_.fingerprint
    blocks = read(write(tmp_path, "\n".join(map(json.dumps, MOONCAKE))), "mooncake")
    blocks.to_csv(path)
    assert read(path, "toolkit").fingerprint == blocks.fingerprint
    content = Corpus(lambda text: list(text.encode()), ["some text or other"])
    corpus = Workload(AtOnce(), Fixed(9, 1), num_requests=3, content=content)
    corpus.to_csv(path)
    again = read(path, "toolkit")
    assert [again.prompt_token_ids(k, 256) for k in range(3)] == [
        corpus.prompt_token_ids(k, 256) for k in range(3)
    ]
    table = pd.read_csv(path, comment="#")
    assert table.num_prompt_tokens.tolist() == [9, 9, 9]


def test_a_prompt_of_a_hundred_thousand_tokens_comes_back(tmp_path: Path) -> None:
    w = Workload.from_prompts([range(100_000)], 1)
    w.to_csv(tmp_path / "w.csv")
    limit = csv.field_size_limit()
    assert read(tmp_path / "w.csv", "toolkit").fingerprint == w.fingerprint
    assert csv.field_size_limit() == limit


def test_a_tag_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    w = Workload(AtOnce(), Fixed(1, 1), num_requests=1, tags={"a": object()})
    with pytest.raises(InvalidConfig, match="no file says what the tag"):
        w.to_csv(tmp_path / "w.csv")


def test_a_content_of_ones_own_cannot_be_written(tmp_path: Path) -> None:
    class Mine(Content):
        def token_ids(
            self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int
        ) -> Array:
            raise NotImplementedError

    w = Workload(AtOnce(), Fixed(1, 1), num_requests=1, content=Mine())
    with pytest.raises(InvalidConfig, match="no file says what"):
        w.to_csv(tmp_path / "w.csv")


def test_a_json_list_of_prompts_is_all_at_once(tmp_path: Path) -> None:
    entries = [
        {"prompt_token_ids": [5, 6, 7], "output_len": 2},
        {"prompt_token_ids": [8], "output_len": 3},
    ]
    path = write(tmp_path, json.dumps(entries))
    w = read(path, "toolkit")
    assert rows(w) == [[0, 3, 2], [0, 1, 3]]
    assert w.prompt_token_ids(0, 99) == (5, 6, 7)
    assert len(read(path, "toolkit", num_requests=1)) == 1


def test_only_as_many_are_read_as_are_asked_for(tmp_path: Path) -> None:
    broken_later = AZURE + "not a row\n"
    assert len(read(write(tmp_path, broken_later), "azure", num_requests=2)) == 2
    with pytest.raises(InvalidConfig, match="at least one"):
        read(write(tmp_path, AZURE), "azure", num_requests=0)


def line(**changes: Any) -> str:
    return json.dumps({**MOONCAKE[0], **changes})


DEEP = "[" * 100_000
HEADER = "arrival_id,due_s,after,num_prompt_tokens,num_output_tokens,priority"


def own(
    row: str = "0,0,-1,1,1,0",
    *,
    header: str = HEADER,
    kind: str = "RandomTokens",
    options: Mapping[str, Any] | None = None,
    version: int = 1,
    **tags: str,
) -> str:
    """A file as Workload.to_csv writes it."""
    content = {"kind": kind, **(options or {})}
    said = {"workload": version, "seed": 0, "content": content, "tags": tags}
    return f"# {json.dumps(said)}\n{header}\n{row}\n"


BAD = {
    "azure": [
        ("a,b\n1,2\n", "line 1: expected a header with the columns TIMESTAMP, Context"),
        (AZURE.replace("396", "4x"), "line 3: expected a whole number for ContextTokens"),
        (AZURE.replace("396", "-4"), "line 3: expected a whole number"),
        (AZURE.replace("2023-11-16 18:15:50", "noon"), "line 3: expected a TIMESTAMP like"),
        (AZURE.replace("11-16 18:15:50", "13-16 18:15:50"), "line 3: expected a TIMESTAMP"),
        (AZURE.replace(",396,109", ",396"), "line 3: expected 3 fields"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        ("", "expected a header"),
    ],
    "mooncake": [
        ("{}\n", "line 1: expected an object with"),
        (line() + "\n[1]\n", "line 2: expected an object"),
        (line(hash_ids=[1, 2]), "line 1: expected 3 hash_ids, one for each 512"),
        (line(hash_ids=[1, 2, -1]), "line 1: expected 3 hash_ids"),
        (line(timestamp="soon"), "line 1: expected a number of seconds"),
        (line(timestamp=float("nan")), "line 1: expected a number of seconds"),
        (line(output_length=1.5), "line 1: expected a whole number for output_length"),
        (line(output_length=True), "line 1: expected a whole number for output_length"),
        (line(timestamp=True), "line 1: expected a number of seconds"),
        (line(hash_ids=[1, 2, True]), "line 1: expected 3 hash_ids"),
        (DEEP, "line 1: expected an object with"),
    ],
    "burstgpt": [
        (BURST.replace("Response tokens", "x"), "columns Response tokens"),
        (BURST.replace("118.5", "later"), "line 4: expected a number of seconds"),
    ],
    "sharegpt": [
        ("[1", "line 1: expected a JSON list of conversations"),
        ("{}", "line 1: expected a JSON list of conversations, found 'dict'"),
        ('[{"id": 1}]', 'entry 0: expected {"conversations"'),
        ("[]", "holds no requests"),
        (DEEP, "line 1: expected a JSON list of conversations, found 'nested too deeply'"),
    ],
    "vidur": [("num_prefill_tokens\n3\n", "columns num_decode_tokens")],
    "toolkit": [
        ("[]", "at least one request"),
        ('{"prompt": "x"}', "prompt_token_ids"),
        ('[{"prompt_token_ids": [1], "output_len": 0}]', "num_output_tokens=0"),
        ('[{"prompt_token_ids": ["a"], "output_len": 2}]', "prompt_token_ids"),
        ('[{"prompt_token_ids": [1], "output_len": 9999999999}]', "output_len"),
        ('[{"prompt_token_ids": [1, 2.9], "output_len": 2}]', "entry 0: expected"),
        ('[{"prompt_token_ids": [1, -7], "output_len": 2}]', "entry 0: expected"),
        ('[{"prompt_token_ids": [1, true], "output_len": 2}]', "entry 0: expected"),
        ('[{"prompt_token_ids": [[1]], "output_len": 2}]', "entry 0: expected"),
        ('[{"prompt_token_ids": [1], "output_len": [1]}]', "entry 0: expected"),
        ('[{"prompt_token_ids": [1], "output_len": 2.7}]', "entry 0: expected"),
        ('[{"prompt_token_ids": [1]}]', "entry 0: expected"),
        (DEEP, "found 'nested too deeply"),
        (own(kind="SharedPrefix", options={"num_tokens": 1}), "request 0: a prompt of 1 tokens"),
        (own(kind="SharedPrefix", options={"num_tokens": 2.5}), "line 1: SharedPrefix("),
        (own(kind="ChatTurns", options={"num_turns": 2.5}), "line 1: ChatTurns("),
        (own(kind="GivenBlocks", options={"block_tokens": 2.5}), "line 1: expected the comment"),
        (
            own("0,0,-1,9,5,0\n1,0,0,14,5,0", kind="ChatTurns", options={"num_turns": 2}),
            "request 1: a prompt of 14 tokens leaves none of its own",
        ),
        ("due_s,after\n", "a CSV of Workload.to_csv"),
        (f"# {{}}\n{HEADER}\n", "line 1: expected the comment that Workload.to_csv writes"),
        (own(version=2), "version 1"),
        (own(kind="Secret"), "line 1: expected a content of the toolkit's"),
        (own(header=HEADER.replace("due_s", "when")), "line 2: expected a header"),
        (own("0,0,-1,x,1,0"), "line 3: expected a whole number for num_prompt_tokens"),
        (own("0,0,-1,1,1,99999999999"), "line 3: expected a whole number for priority"),
        (own("0,0,-1,1"), "line 3: expected 6 fields"),
        (own("0,0,7,1,1,0"), "an earlier request"),
        (own(""), "at least one request"),
        (
            own("0,0,-1,2,1,0,5", header=f"{HEADER},prompt_token_ids", kind="GivenTokens"),
            "line 3: expected 2 prompt_token_ids",
        ),
        (
            own("0,0,-1,2,1,0,x", header=f"{HEADER},tags.t", t="int"),
            "line 3: expected a value of the type int for the tag t",
        ),
    ],
}


@pytest.mark.parametrize(
    ("format", "text", "says"),
    [
        pytest.param(format, text, says, id=f"{format}-{says}")
        for format, cases in BAD.items()
        for text, says in cases
    ],
)
def test_a_bad_file_is_refused_with_file_line_and_what_was_expected(
    tmp_path: Path, format: str, text: str, says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidConfig, match=re.escape(says)) as caught:
        read(path, format, tokenizer=str.split)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read(tmp_path / "none", format, tokenizer=str.split)
    path = tmp_path / "bytes"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read(path, format, tokenizer=str.split)


def test_a_format_that_is_not_known_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path, AZURE)
    with pytest.raises(InvalidConfig, match="there are: azure, mooncake"):
        read(path, "excel")
    with pytest.raises(InvalidConfig, match="toolkit, vidur"):
        read(path, "azure").to_csv(path, format="azure")
