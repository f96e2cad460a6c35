"""Prompts: what is said to be shared really is, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments import (
    AtOnce,
    ChatTurns,
    Closed,
    Content,
    Corpus,
    Fixed,
    Poisson,
    RandomTokens,
    SharedPrefix,
    Uniform,
    Workload,
)
from toolkit.experiments.workloads.columns import Columns, Ragged
from toolkit.experiments.workloads.given import GivenBlocks, GivenTokens
from toolkit.experiments.workloads.randomness import FIRST_TOKEN_ID, Array

VOCAB = 50_000


def prompts(workload: Workload) -> list[tuple[int, ...]]:
    return [workload.prompt_token_ids(k, VOCAB) for k in range(len(workload))]


def common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many tokens (or names) two prompts have in common at their beginning."""
    return next(
        (k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(min(a, b, key=len))
    )


CONTENTS: st.SearchStrategy[Content] = st.one_of(
    st.just(RandomTokens()),
    st.builds(SharedPrefix, st.integers(1, 40), st.integers(1, 4)),
    st.builds(ChatTurns, st.integers(1, 5), st.floats(0, 2)),
)


@settings(max_examples=50)
@given(content=CONTENTS, num=st.integers(1, 25), seed=st.integers(0, 9), clients=st.integers(0, 4))
def test_prompts_are_as_long_as_the_table_says_and_always_the_same(
    content: Content, num: int, seed: int, clients: int
) -> None:
    arrivals = Closed(clients, 0.3) if clients else Poisson(2.0)
    made = [
        Workload(arrivals, Uniform((4, 30), (1, 9)), num_requests=num, seed=seed, content=content)
        for _ in range(2)
    ]
    assert prompts(made[0]) == prompts(made[1])
    assert [len(p) for p in prompts(made[0])] == made[0].table.num_prompt_tokens.tolist()
    for prompt in prompts(made[0]):
        assert FIRST_TOKEN_ID <= min(prompt) <= max(prompt) < VOCAB


@settings(max_examples=50)
@given(content=CONTENTS, seed=st.integers(0, 9))
def test_what_is_said_to_be_shared_is_the_beginning_of_an_earlier_prompt(
    content: Content, seed: int
) -> None:
    w = Workload(
        Poisson(1.0), Uniform((20, 30), (8, 9)), num_requests=16, seed=seed, content=content
    )
    asked = prompts(w)
    said = w.content.num_shared_tokens(w.columns, seed)
    for k, prompt in enumerate(asked):
        most = max((common(prompt, earlier) for earlier in asked[:k]), default=0)
        # A random token may agree with another prompt's by chance, once in VOCAB times.
        assert said[k] <= most <= said[k] + 1


def test_a_group_shares_its_prefix_and_no_other() -> None:
    content = SharedPrefix(12, num_groups=2)
    w = Workload(AtOnce(), Fixed(5, 1), num_requests=20, content=content)
    groups: list[int] = w.table["tags.group"].tolist()
    assert set(groups) == {0, 1}
    asked = prompts(w)
    for a, b in zip(range(19), range(1, 20), strict=True):
        assert (common(asked[a], asked[b]) >= 12) == (groups[a] == groups[b])
    assert (
        "tags.group"
        not in Workload(AtOnce(), Fixed(5, 1), num_requests=2, content=SharedPrefix(12)).table
    )


def test_a_turn_repeats_the_whole_prompt_before_it_and_follows_it() -> None:
    w = Workload(Poisson(1.0), Fixed(10, 4), num_requests=7, content=ChatTurns(3, think_s=2.0))
    table = w.table
    assert table.num_prompt_tokens.tolist() == [10, 24, 38, 10, 24, 38, 10]
    assert table.after.tolist() == [-1, 0, 1, -1, 3, 4, -1]
    assert (table.due_s[table.after >= 0] == 2.0).all()
    assert table["tags.turn"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    asked = prompts(w)
    assert asked[1][:10] == asked[0]
    assert asked[2][:24] == asked[1]
    assert common(asked[3], asked[0]) == 0


def test_chats_of_a_closed_loop_follow_the_last_turn_of_the_one_before() -> None:
    content = ChatTurns(2, think_s=1.0)
    w = Workload(Closed(2, think_s=9.0), Fixed(3, 3), num_requests=8, content=content)
    assert w.table.after.tolist() == [-1, 0, -1, 2, 1, 4, 3, 6]
    assert w.table.due_s.tolist() == [0, 1, 0, 1, 9, 1, 9, 1]


def test_blocks_of_one_id_are_the_same_tokens_and_those_of_others_are_not() -> None:
    ids = Ragged.of([[7, 8], [7, 9], [7, 8, 10]], dtype=np.int64)
    columns = Workload(AtOnce(), Fixed(1, 1), num_requests=3).columns
    columns = columns.replace(num_prompt_tokens=np.array([6, 8, 9], np.int32))
    w = Workload.from_columns(columns, content=GivenBlocks(ids, 4))
    asked = prompts(w)
    assert asked[0][:4] == asked[1][:4] == asked[2][:4]
    assert asked[0][4:6] == asked[2][4:6]
    assert common(asked[0], asked[1]) == 4
    keys = [arrival.block_keys for arrival in w.arrivals()]
    assert [len(k) for k in keys] == [1, 2, 2]
    assert keys[0][0] == keys[1][0] == keys[2][0]
    assert keys[1][1] != keys[2][1]
    halves = [arrival.block_keys for arrival in w.arrivals(block_size=2)]
    assert [len(k) for k in halves] == [3, 4, 4]
    assert halves[0] == halves[2][:3]
    assert len(set(halves[2])) == 4
    assert [arrival.key_tokens for arrival in w.arrivals()] == [4, 4, 4]
    assert [arrival.key_tokens for arrival in w.arrivals(block_size=2)] == [2, 2, 2]
    with pytest.raises(InvalidConfig, match="does not divide the trace's blocks of 4"):
        next(w.arrivals(block_size=3))


@settings(max_examples=50)
@given(content=CONTENTS, block_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_names_of_blocks_agree_where_all_tokens_up_to_there_do(
    content: Content, block_size: int, seed: int
) -> None:
    w = Workload(Poisson(1.0), Uniform((1, 40), (1, 9)), num_requests=9, seed=seed, content=content)
    asked = prompts(w)
    named = [arrival.block_keys for arrival in w.arrivals(block_size=block_size)]
    for k, (names, prompt) in enumerate(zip(named, asked, strict=True)):
        if content.shares:
            assert len(names) == len(prompt) // block_size
        for other in range(k):
            expected = common(prompt, asked[other]) // block_size
            assert common(names, named[other]) in (expected, expected - (block_size == 1))


def test_prompts_that_share_nothing_come_as_lengths_and_others_as_tokens() -> None:
    plain = Workload(AtOnce(), Fixed(5, 1), num_requests=1)
    assert next(plain.arrivals()).prompt_token_ids is None
    shared = Workload(AtOnce(), Fixed(5, 1), num_requests=2, content=SharedPrefix(8))
    first, second = (a.prompt_token_ids for a in shared.arrivals())
    assert first is not None
    assert second is not None
    assert len(first) == 13
    assert common(first, second) >= 8


def test_a_corpus_gives_pieces_of_its_text() -> None:
    text = "the quick brown fox jumps over the lazy dog "
    w = Workload(
        AtOnce(), Fixed(10, 1), num_requests=4, content=Corpus(lambda t: list(t.encode()), [text])
    )
    for prompt in prompts(w):
        assert bytes(prompt).decode() in text * 2
    again = Corpus(lambda t: list(t.encode()), [text])
    assert again == w.content
    assert hash(again) == hash(w.content)
    with pytest.raises(InvalidConfig, match="a vocabulary of 100 lacks"):
        w.prompt_token_ids(0, 100)


@pytest.mark.slow
def test_a_corpus_takes_the_bundled_text_and_a_tokenizer_object() -> None:
    class Bytes:
        def encode(self, text: str) -> list[int]:
            return list(text.encode())

    content = Corpus(Bytes())
    assert "65,536 tokens" in repr(content)
    w = Workload(AtOnce(), Fixed(2000, 1), num_requests=1, content=content)
    assert "ransl" in bytes(w.prompt_token_ids(0, 256)).decode(errors="replace")


def test_a_corpus_needs_text_and_something_that_encodes_it() -> None:
    with pytest.raises(InvalidConfig, match="no tokens"):
        Corpus(lambda text: [], ["a"])
    with pytest.raises(InvalidConfig, match="encodes no text"):
        Corpus(3)


def test_given_prompts_are_asked_as_they_are() -> None:
    w = Workload.from_prompts([[1, 2, 3], [9] * 40, [9] * 33], [4, 5, 6])
    assert prompts(w) == [(1, 2, 3), (9,) * 40, (9,) * 33]
    assert w.table.num_output_tokens.tolist() == [4, 5, 6]
    assert isinstance(w.content, GivenTokens)
    assert w.content.num_shared_tokens(w.columns, 0).tolist() == [0, 0, 32]
    with pytest.raises(InvalidConfig, match="a vocabulary of 5 lacks"):
        w.prompt_token_ids(1, 5)
    with pytest.raises(InvalidConfig, match="no other lengths"):
        w.scale(lengths=2)


def test_a_vocabulary_of_special_tokens_alone_is_refused() -> None:
    w = Workload(AtOnce(), Fixed(5, 1), num_requests=1)
    with pytest.raises(InvalidConfig, match="vocab_size=3 is too small"):
        w.prompt_token_ids(0, 3)


def test_a_content_of_ones_own_is_a_class_with_one_method() -> None:
    class Counting(Content):
        def token_ids(
            self, columns: Columns, arrival_id: int, *, vocab_size: int, seed: int
        ) -> Array:
            return np.arange(columns.num_prompt_tokens[arrival_id])

    w = Workload(AtOnce(), Fixed(4, 1), num_requests=1, content=Counting())
    assert w.prompt_token_ids(0, VOCAB) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "make", [lambda: SharedPrefix(0), lambda: SharedPrefix(4, 0), lambda: ChatTurns(0)]
)
def test_contents_out_of_range_are_refused(make: type[Content]) -> None:
    with pytest.raises(InvalidConfig, match="at least one"):
        make()
