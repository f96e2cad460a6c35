"""Workloads: seeded, in order, scalable, small; and their summary and figure."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InvalidConfig
from toolkit.experiments import (
    Alpaca,
    AtOnce,
    ChatTurns,
    Closed,
    Constant,
    Fixed,
    Gamma,
    Poisson,
    Ramp,
    RandomTokens,
    SharedPrefix,
    ShareGPT,
    Uniform,
    Workload,
)
from toolkit.experiments.studies.cells import at_rate
from toolkit.experiments.workloads.arrivals import Arrivals
from toolkit.experiments.workloads.columns import Ragged
from toolkit.experiments.workloads.given import GivenBlocks

ARRIVALS: st.SearchStrategy[Arrivals] = st.one_of(
    st.builds(Gamma, st.floats(0.1, 100), st.floats(0.1, 5)),
    st.builds(Closed, st.integers(1, 6), st.floats(0, 3)),
    st.just(AtOnce()),
)


def small(seed: int = 0, num_requests: int = 12) -> Workload:
    return Workload(Poisson(2.0), ShareGPT(), num_requests=num_requests, seed=seed)


@settings(max_examples=50)
@given(arrivals=ARRIVALS, turns=st.integers(1, 4), num=st.integers(1, 40), seed=st.integers(0, 99))
def test_whoever_reads_front_to_back_meets_every_request_in_time(
    arrivals: Arrivals, turns: int, num: int, seed: int
) -> None:
    """No request stands behind one that is due later than the first of its own chain."""
    content = ChatTurns(turns, 0.5)
    w = Workload(arrivals, Fixed(3, 2), num_requests=num, seed=seed, content=content)
    chain_s: list[float] = []
    latest_s = 0.0
    for arrival in w.arrivals():
        assert arrival.after < arrival.arrival_id
        if arrival.after < 0:
            latest_s = max(latest_s, arrival.due_s)
            chain_s.append(arrival.due_s)
        else:
            chain_s.append(chain_s[arrival.after])
        assert chain_s[-1] == latest_s
    assert len(chain_s) == num


def test_arrivals_say_what_the_table_says() -> None:
    w = Workload(
        Closed(2, 1.0), Uniform((1, 9), (1, 9)), num_requests=7, tags={"a": "x"}, priority=[0, 5]
    )
    seen = pd.DataFrame([arrival._asdict() for arrival in w.arrivals()])
    shared = ["arrival_id", "due_s", "after", "num_prompt_tokens", "num_output_tokens", "priority"]
    pd.testing.assert_frame_equal(seen[shared], w.table[shared], check_dtype=False)
    assert seen.tags.tolist() == [{"a": "x"}] * 7
    assert len(w.arrivals()) == 7


def test_the_seed_decides_and_differs() -> None:
    assert small().fingerprint == small().fingerprint
    assert small().fingerprint != small(seed=1).fingerprint
    assert small(seed=1).fingerprint == small().with_seed(1).fingerprint


def test_loads_that_differ_in_one_part_have_the_same_luck_in_the_rest() -> None:
    a, b = small(), Workload(Poisson(2.0), Alpaca(), num_requests=12)
    assert a.table.due_s.tolist() == b.table.due_s.tolist()
    c = Workload(Constant(9.0), ShareGPT(), num_requests=12)
    assert a.table.num_output_tokens.tolist() == c.table.num_output_tokens.tolist()


def test_scaling_the_rate_is_drawing_at_another_rate() -> None:
    twice = small().scale(rate=2)
    assert twice.rate == 4.0
    anew = Workload(Poisson(4.0), ShareGPT(), num_requests=12)
    np.testing.assert_allclose(twice.table.due_s, anew.table.due_s)
    assert twice.fingerprint != small().fingerprint


def test_a_faster_rate_leaves_time_to_think_and_a_shorter_time_does_not() -> None:
    content = ChatTurns(2, think_s=4.0)
    w = Workload(Constant(1.0), Fixed(3, 2), num_requests=6, content=content)
    assert w.rate == 2.0  # two requests a conversation
    assert w.scale(rate=2).table.due_s.tolist() == [0, 4, 0.5, 4, 1, 4]
    assert w.scale(time=0.5).table.due_s.tolist() == [0, 2, 0.5, 2, 1, 2]
    assert w.scale(rate=2, time=2).table.due_s.tolist() == [0, 8, 1, 8, 2, 8]
    assert w.scale(rate=3, time=2).rate == 3.0


def test_scaled_lengths_stay_chats_and_prefixes() -> None:
    chat = Workload(AtOnce(), Fixed(10, 4), num_requests=3, content=ChatTurns(3)).scale(lengths=0.5)
    assert chat.table.num_prompt_tokens.tolist() == [5, 12, 19]
    assert chat.prompt_token_ids(2, 999)[:12] == chat.prompt_token_ids(1, 999)
    prefix = Workload(AtOnce(), Fixed(10, 4), num_requests=1, content=SharedPrefix(7))
    assert prefix.scale(lengths=2).table.num_prompt_tokens.tolist() == [27]
    tiny = Workload(AtOnce(), Fixed(10, 4), num_requests=1).scale(lengths=0.01)
    assert tiny.table[["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist() == [[1, 1]]


def test_blocks_of_a_trace_are_scaled_with_the_lengths() -> None:
    ids = Ragged.of([[1, 2], [1]], dtype=np.int64)
    columns = Workload(AtOnce(), Fixed(1, 8), num_requests=2).columns
    columns = columns.replace(num_prompt_tokens=np.array([24, 16], np.int32))
    w = Workload.from_columns(columns, content=GivenBlocks(ids, 16))
    quarter = w.scale(lengths=0.25)
    assert quarter.table.num_prompt_tokens.tolist() == [6, 4]
    assert quarter.content.block_tokens == 4  # type: ignore[attr-defined]
    assert quarter.prompt_token_ids(0, 99)[:4] == quarter.prompt_token_ids(1, 99)
    assert w.describe().value.shared_prompt_share == quarter.describe().value.shared_prompt_share
    with pytest.raises(InvalidConfig, match="a whole number"):
        w.scale(lengths=0.3)


def test_the_first_requests_of_a_ramp_have_a_rate_of_their_own() -> None:
    ramp = Workload(Ramp(1.0, 9.0), Fixed(8, 2), num_requests=2000)
    first = ramp.head(200)
    assert ramp.rate == ramp.head(2000).rate == 5.0
    assert first.rate == pytest.approx(199 / first.table["due_s"].iloc[-1])
    assert first.rate < 3.0
    assert first.describe().value["rate"] == first.rate
    assert first.scale(rate=2.0).rate == pytest.approx(2 * first.rate)
    assert first.with_seed(1).rate != 5.0
    late = Workload(Poisson(5.0), Fixed(8, 2), num_requests=2000).with_arrivals(Ramp(1.0, 9.0))
    assert late.rate == 5.0
    assert late.head(200).rate < 3.0


def test_the_head_is_the_beginning() -> None:
    w = Workload(Poisson(1.0), ShareGPT(), num_requests=9, content=ChatTurns(2), tags={"a": [1, 2]})
    pd.testing.assert_frame_equal(w.head(5).table, w.table.head(5))
    assert w.head(5).prompt_token_ids(4, 999) == w.prompt_token_ids(4, 999)
    assert len(w.head(99)) == 9


def test_what_was_changed_can_be_drawn_anew_here_and_in_another_process() -> None:
    made = small().scale(rate=3, lengths=0.5).head(7).with_arrivals(Constant(2.0))
    anew = Workload(Poisson(2.0), ShareGPT(), num_requests=12, seed=5).scale(rate=3, lengths=0.5)
    assert made.with_seed(5).fingerprint == anew.head(7).with_arrivals(Constant(2.0)).fingerprint
    # No columns but its own go along.
    assert len(pickle.dumps(made)) < len(pickle.dumps(made.columns)) + 1500
    sent = pickle.loads(pickle.dumps(made))
    assert sent.with_seed(5).fingerprint == made.with_seed(5).fingerprint
    assert repr(sent) == repr(made)
    assert repr(made).endswith(
        "seed=0).scale(rate=3, lengths=0.5).head(7).with_arrivals(Constant(rate=2.0))"
    )


def test_tags_are_values_draws_or_functions_of_the_table() -> None:
    w = Workload(
        AtOnce(),
        Uniform((1, 9), (1, 9)),
        num_requests=4000,
        tags={
            "model": "m",
            "tenant": {"a": 3, "b": 1},
            "kind": ["x", 7],
            "predicted_tokens": lambda table: 2 * table.num_output_tokens,
        },
        priority={0: 1, 5: 1},
    )
    table = w.table
    assert set(table["tags.model"]) == {"m"}
    assert (table["tags.tenant"] == "a").mean() == pytest.approx(0.75, abs=0.03)
    assert (table["tags.kind"] == "x").mean() == pytest.approx(0.5, abs=0.03)
    assert (table["tags.predicted_tokens"] == 2 * table.num_output_tokens).all()
    assert (table.priority == 5).mean() == pytest.approx(0.5, abs=0.03)
    # Each is drawn from a stream of its own.
    assert abs(np.corrcoef(table["tags.tenant"] == "a", table["tags.kind"] == "x")[0, 1]) < 0.05


@pytest.mark.parametrize("rule", [[], {}, {"a": 0}, {"a": -1, "b": 2}, lambda table: [1, 2]])
def test_tags_that_say_nothing_are_refused(rule: object) -> None:
    with pytest.raises(InvalidConfig, match=r"tags\.x"):
        Workload(AtOnce(), Fixed(1, 1), num_requests=5, tags={"x": rule})


def test_a_request_takes_less_than_200_bytes() -> None:
    """So that a million fit in 200 MB, and in 50 MB once they are drawn."""
    ShareGPT().draw(np.array([0.5]), np.array([0.5]))  # imports and solves what it needs
    tracemalloc.start()
    try:
        w = Workload(Poisson(100.0), ShareGPT(), num_requests=200_000)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 50 * len(w)
    assert peak < 200 * len(w)


def test_columns_cannot_be_changed_under_a_workload() -> None:
    with pytest.raises(ValueError, match="read-only"):
        small().columns.due_s[0] = 1.0


def test_the_summary_knows_a_poisson_load() -> None:
    w = Workload(Poisson(10.0), Fixed(100, 10), num_requests=20_000, content=SharedPrefix(300, 4))
    value = w.describe().value
    assert value.rate == 10.0
    assert value.gap_cv == pytest.approx(1, abs=0.03)
    assert value.fano_per_minute == pytest.approx(1, abs=0.6)
    assert value.prompt_mean == value.prompt_p99 == 400
    assert value.shared_prompt_share == pytest.approx(0.75, abs=1e-3)
    assert math.isnan(value.length_correlation)


def test_the_summary_tells_slow_swings_from_bursts() -> None:
    """Gaps that look Poisson, at a rate that differs from minute to minute."""
    rng = np.random.default_rng(0)
    minutes = [np.sort(60 * (k + rng.random(100 + 400 * (k % 2)))) for k in range(30)]
    columns = Workload(AtOnce(), Fixed(1, 1), num_requests=sum(map(len, minutes))).columns
    times = np.concatenate(minutes)
    w = Workload.from_columns(columns.replace(due_s=times - times[0]), content=RandomTokens())
    assert w.describe().value.gap_cv < 1.8
    assert w.describe().value.fano_per_minute > 50


def test_the_first_requests_of_a_trace_have_a_rate_of_their_own() -> None:
    due_s = np.array([0.0, 1, 2, 3, 3.25, 3.5, 3.75, 4])
    columns = small(num_requests=8).columns.replace(due_s=due_s)
    whole = Workload.from_columns(columns, content=RandomTokens())
    first = whole.head(4)
    assert (whole.rate, first.rate) == (7 / 4, 1.0)
    assert at_rate(first, 5.0).table.due_s.tolist() == pytest.approx([0, 0.2, 0.4, 0.6])
    assert first.scale(rate=2, time=4).rate == pytest.approx(0.5)
    assert first.with_seed(3).rate == 1.0
    assert first.with_arrivals(Poisson(7.0)).head(2).rate == 7.0
    assert small().head(4).rate == small().rate


def test_the_rate_of_given_columns_is_counted() -> None:
    columns = small().columns
    every = Workload.from_columns(columns.replace(due_s=np.arange(12) / 4), content=RandomTokens())
    assert every.rate == pytest.approx(4)
    at_once = Workload.from_columns(columns.replace(due_s=np.zeros(12)), content=RandomTokens())
    assert at_once.rate == math.inf
    assert math.isnan(Workload(Closed(2), Fixed(1, 1), num_requests=4).rate)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_prompt_tokens": np.zeros(12, np.int32)}, "num_prompt_tokens=0"),
        ({"num_output_tokens": np.zeros(12, np.int32)}, "num_output_tokens=0"),
        ({"due_s": np.full(12, np.nan)}, "due_s"),
        ({"due_s": np.full(12, -1.0)}, "due_s"),
        ({"after": np.arange(12, dtype=np.int32)}, "an earlier request"),
        ({"after": np.full(12, -2, np.int32)}, "an earlier request"),
    ],
)
def test_columns_that_nothing_can_run_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        Workload.from_columns(small().columns.replace(**changes), content=RandomTokens())


def test_what_is_no_workload_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="at least one"):
        Workload(AtOnce(), Fixed(1, 1), num_requests=0)
    with pytest.raises(InvalidConfig, match="at least one"):
        Workload.from_prompts([], 4)
    with pytest.raises(InvalidConfig, match="at least one"):
        small().head(0)
    with pytest.raises(InvalidConfig, match="rate=0 scales nothing"):
        small().scale(rate=0)
    with pytest.raises(InvalidConfig, match="follow one another"):
        Workload(Closed(1), Fixed(1, 1), num_requests=2).with_arrivals(AtOnce())
    with pytest.raises(InvalidConfig, match="no request 12"):
        small().prompt_token_ids(12, 100)


def test_the_module_loads_no_torch() -> None:
    """What simulates need not wait for it."""
    code = (
        "import sys; from toolkit.experiments.workloads.workload import Workload; "
        "from toolkit.experiments.workloads.arrivals import Poisson; "
        "from toolkit.experiments.workloads.lengths import Fixed; "
        "list(Workload(Poisson(1.0), Fixed(2, 2), num_requests=2).arrivals()); "
        "print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
