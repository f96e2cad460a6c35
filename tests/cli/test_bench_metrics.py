"""Arithmetic of the benchmarks, on numbers made by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from toolkit.cli.bench.metrics import request_metrics, spread
from toolkit.cli.bench.model_work import decode_bytes, prefill_flops
from toolkit.cli.bench.op_work import op_work
from toolkit.experiments import Run
from toolkit.models import AttentionSpec, DecoderSpec, MlpSpec, NormSpec
from toolkit.models.spec import MoeSpec

# Hidden 8, two heads of 4 sharing one key head, MLP of 16, vocabulary of 10, two layers.
SPEC = DecoderSpec(
    family="llama",
    vocab_size=10,
    hidden_size=8,
    num_layers=2,
    max_model_len=64,
    norm=NormSpec(kind="rms", eps=1e-6),
    attention=AttentionSpec(num_heads=2, num_kv_heads=1, head_dim=4, scale=0.5, windows=(None, 3)),
    mlp=MlpSpec(intermediate_size=16, activation="silu", gated=True),
)
LAYER = 8 * (8 + 4 + 4) + 8 * 8 + 3 * 8 * 16  # qkv, out, gate and up and down
HEAD = 8 * 10


def test_the_metrics_of_two_requests_have_vllms_names() -> None:
    requests = pd.DataFrame(
        {
            "arrival_id": [0, 1],
            "status": "finished",
            "scheduled_s": [10.0, 11.0],
            "first_token_s": [10.2, 11.4],
            "last_token_s": [10.5, 12.0],
            "finished_s": [10.5, 12.0],
            "num_prompt_tokens": [6, 4],
            "num_cached_tokens": [2, 0],
            "num_output_tokens": [3, 2],
            "ttft_s": [0.2, 0.4],
            "tpot_s": [0.15, 0.6],
            "e2e_s": [0.5, 1.0],
        }
    )
    tokens = pd.DataFrame(
        {
            "arrival_id": [0, 0, 0, 1, 1],
            "index": [0, 1, 2, 0, 1],
            "time_s": [10.2, 10.3, 10.5, 11.4, 12.0],
        }
    )
    metrics = request_metrics(Run(requests, tokens))
    expected = {
        "duration": 2.0,
        "completed": 2,
        "failed": 0,
        "cached_tokens": 2,
        "total_input_tokens": 10,
        "total_output_tokens": 5,
        "request_throughput": 1.0,
        "output_throughput": 2.5,
        "total_token_throughput": 7.5,
        "mean_ttft_ms": 300.0,
        "median_ttft_ms": 300.0,
        "p99_ttft_ms": 398.0,
        "mean_tpot_ms": (150.0 + 600.0) / 2,
        "median_itl_ms": 200.0,  # of the gaps 100, 200 and 600, pooled
        "mean_itl_ms": 300.0,
        "mean_e2el_ms": 750.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_spread_keeps_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "runs": 3}


def test_a_token_reads_every_matrix_once_and_the_keys_in_its_window() -> None:
    # Ten positions in the first layer, three in the second, each a key and a value of 4 numbers.
    expected = 2 * (2 * LAYER + HEAD) + (10 + 3) * 2 * 4 * 2
    assert decode_bytes(SPEC, context=10, itemsize=2) == expected
    int8 = decode_bytes(SPEC, context=10, itemsize=2, quantization="int8")
    assert int8 == 2 * LAYER + HEAD + 13 * 16


def test_a_prompt_takes_two_operations_per_weight_and_causal_attention() -> None:
    # Five queries see 1 + 2 + 3 + 4 + 5 positions; with a window of 3, 1 + 2 + 3 + 3 + 3.
    expected = 2 * (2 * LAYER * 5 + HEAD) + 4 * 8 * (15 + 12)
    assert prefill_flops(SPEC, 5) == expected


def test_a_mixture_counts_the_experts_that_a_token_picks() -> None:
    moe = MoeSpec(num_experts=4, num_active=2, intermediate_size=16)
    mixed = replace(SPEC, moe=moe, moe_layers=(1,))
    more = prefill_flops(mixed, 1) - prefill_flops(SPEC, 1)
    assert more == 2 * 8 * (4 + 3 * 16)  # the router, and a second expert


def test_attention_counts_causal_pairs_and_each_key_once() -> None:
    query = torch.ones(3, 2, 4)
    cache = torch.ones(5, 1, 2, 4)
    starts = torch.tensor([0, 2, 3], dtype=torch.int32)
    contexts = torch.tensor([4, 3], dtype=torch.int32)
    args = (query, cache, cache, torch.zeros(2, 2, dtype=torch.int32), starts, contexts)
    work = op_work("paged_attention", args, query)
    assert work.flops == 4 * 2 * 4 * (3 + 4 + 3)
    assert work.num_bytes == 4 * (2 * 7 * 4 + 2 * 3 * 2 * 4)


def test_row_ops_move_what_goes_in_and_out() -> None:
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    assert op_work("silu_mul", (x,), x[:, :4]).num_bytes == 2 * (16 + 8)
    assert op_work("add_rms_norm", (x, x, x[0], 1e-6), (x, x)).num_bytes == 2 * (4 * 16 + 8)
    assert op_work("write_kv", (x, x, torch.ones(100), torch.ones(100)), None).num_bytes == 128
