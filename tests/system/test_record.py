"""The record of the bundled model under everything at once: exact times, and what was sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from toolkit import LLM, SamplingParams
from toolkit.record import Record
from toolkit.structured_outputs import StructuredOutputsParams

PARTS = [
    *("tokenize_s", "wait_blocks_s", "wait_budget_s", "wait_seqs_s", "wait_policy_s"),
    *("wait_grammar_s", "wait_host_s", "prefill_s", "preempted_before_first_s", "emit_s"),
]
SHARED = "The cache keeps what the prompts have in common, so that it is computed once. "


@pytest.fixture(scope="module")
def mixed() -> Iterator[LLM]:
    """An LLM after a mixed run: chunked, reused, preempted, several samples, grammar, aborted."""
    with LLM(max_model_len=256, max_num_seqs=6, num_kv_blocks=16, max_num_batched_tokens=24) as llm:
        llm.engine.record.level = "explain"
        llm.generate(SHARED, SamplingParams(max_tokens=2))
        choice = StructuredOutputsParams(choice=["yes", "no"])
        for index in range(10):
            params = SamplingParams(
                max_tokens=60, ignore_eos=True, n=3 if index == 4 else 1, seed=index
            )
            if index == 6:
                params = SamplingParams(structured_outputs=choice, logprobs=2)
            llm.engine.add(SHARED * (1 + index % 2) + str(index), params, tags={"index": index})
        doomed = llm.engine.add(SHARED + "?", SamplingParams(max_tokens=30))
        llm.engine.run_until(lambda report: report.step > 12)
        llm.engine.abort(doomed)
        llm.engine.run_until_idle()
        yield llm


def test_the_parts_of_each_time_to_the_first_token_add_up(mixed: LLM):
    record = mixed.engine.record
    table = record.requests
    has_token = table["first_token_s"].notna()
    assert has_token.sum() >= 12
    parts_s = table[PARTS].sum(axis=1)
    assert np.allclose(parts_s[has_token], table["ttft_s"][has_token], rtol=0, atol=1e-6)
    after_s = table["preempted_s"] - table["preempted_before_first_s"]
    whole_s = (table["ttft_s"] + table["decode_s"] + after_s)[has_token]
    assert np.allclose(whole_s, table["e2e_s"][has_token], rtol=0, atol=1e-6)
    # And it was a mixed run.
    assert (table["num_preemptions"] > 0).any()
    assert (table["num_cached_tokens"] > 0).any()
    assert (table["status"] == "aborted").any()
    assert table["parent_id"].notna().sum() == 2
    assert (record.chunks.groupby("request_id").size() > 1).any()
    assert (table["wait_host_s"] > 0).all()


def test_every_token_has_its_facts_and_they_agree_with_the_columns(mixed: LLM, tmp_path: Path):
    record = mixed.engine.record
    tokens = record.tokens
    loaded = Record.load(record.save(tmp_path / "run.zip"))
    assert len(tokens) > 200
    columns = tokens[["logprob_raw", "logprob_processed", "entropy_nats"]]
    assert columns.notna().all().all()
    assert tokens["rank_raw"].min() == 1
    for row in tokens.itertuples():
        facts = record.facts(row.request_id, row.position)
        assert facts is not None
        assert loaded.facts(row.request_id, row.position) == facts
        own = (facts["token_id"], facts["source"], facts["rank_raw"])
        assert own == (row.token_id, row.source, row.rank_raw)
        for name in ("logprob_raw", "logprob_processed", "entropy_nats"):
            assert math.isclose(facts[name], getattr(row, name), abs_tol=1e-4)
    by_source = tokens.groupby("source").size()
    assert {"sampled", "grammar"} <= set(by_source.index)
