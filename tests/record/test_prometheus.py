"""An engine's metrics have vLLM's names and say what happened, at a fixed cost per step."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import make_engine, params
from toolkit.engine import Engine
from toolkit.record.engine_counts import EngineCounts
from toolkit.record.histogram import REQUEST_BOUNDS_S, TOKEN_BOUNDS_S
from toolkit.record.prometheus import EngineCollector, metrics_registry

# Those of vLLM whose meaning is ours too. Its dashboards ask for them by these names.
VLLM_NAMES = """
    cache_config_info e2e_request_latency_seconds generation_tokens_total
    inter_token_latency_seconds iteration_tokens_total kv_block_idle_before_evict_seconds
    kv_block_lifetime_seconds kv_block_reuse_gap_seconds kv_cache_usage_perc
    num_preemptions_total num_requests_running num_requests_waiting
    num_requests_waiting_by_reason prefix_cache_hits_total prefix_cache_queries_total
    prompt_tokens_by_source_total prompt_tokens_cached_by_source_total prompt_tokens_cached_total
    prompt_tokens_total request_decode_time_seconds request_generation_tokens
    request_inference_time_seconds request_max_num_generation_tokens request_num_preemptions
    request_params_max_tokens request_params_n request_prefill_kv_computed_tokens
    request_prefill_time_seconds request_prompt_tokens request_queue_time_seconds
    request_success_total request_time_per_output_token_seconds time_to_first_token_seconds
""".split()
OWN_NAMES = ["host_gap_seconds", "request_grammar_wait_seconds", "steps_total"]


def watched(**settings: Any) -> tuple[Engine, EngineCounts]:
    engine = make_engine(**settings)
    counts = EngineCounts(engine)
    counts.attach()
    return engine, counts


def text_of(counts: EngineCounts) -> str:
    registry = metrics_registry(EngineCollector(counts, model_name="letters"))
    return generate_latest(registry).decode()


def values(counts: EngineCounts) -> dict[str, float]:
    """Every sample by its name, with the label that tells its series apart."""
    found = {}
    for family in text_string_to_metric_families(text_of(counts)):
        for sample in family.samples:
            apart = [v for k, v in sample.labels.items() if k not in ("model_name", "engine")]
            found["/".join([sample.name, *apart])] = sample.value
    return found


def test_the_names_are_those_that_the_dashboards_ask_for() -> None:
    _, counts = watched()
    named = set(re.findall(r"^# TYPE (\S+)", text_of(counts), flags=re.MULTILINE))
    assert {n for n in named if n.startswith("vllm:")} == {f"vllm:{name}" for name in VLLM_NAMES}
    assert {n for n in named if n.startswith("toolkit:")} == {f"toolkit:{n}" for n in OWN_NAMES}
    assert {"process_resident_memory_bytes", "python_info"} <= named


def test_every_series_carries_model_and_engine() -> None:
    _, counts = watched()
    for line in text_of(counts).splitlines():
        if line.startswith(("vllm:", "toolkit:")):
            assert 'model_name="letters"' in line
            assert 'engine="0"' in line


def test_the_bounds_are_those_of_the_dashboards() -> None:
    _, counts = watched(max_model_len=64)
    text = text_of(counts)
    bounds = re.findall(r'vllm:request_prompt_tokens_bucket\{.*le="([^"]+)"', text)
    assert bounds == ["1.0", "2.0", "5.0", "10.0", "20.0", "50.0", "+Inf"]
    assert (REQUEST_BOUNDS_S[0], REQUEST_BOUNDS_S[-1], len(REQUEST_BOUNDS_S)) == (0.3, 7680.0, 21)
    assert (TOKEN_BOUNDS_S[0], TOKEN_BOUNDS_S[-1], len(TOKEN_BOUNDS_S)) == (0.01, 80.0, 19)


def test_a_known_run_is_counted_exactly() -> None:
    engine, counts = watched()
    for tokens in ([1, 2, 3], [4, 5, 6, 7, 8]):
        engine.add(tokens, params(4))
    engine.run_until_idle()
    found = values(counts)
    assert found["vllm:prompt_tokens_total"] == 8
    assert found["vllm:generation_tokens_total"] == 8
    assert found["vllm:request_success_total/length"] == 2
    assert found["vllm:request_success_total/stop"] == 0
    assert found["vllm:time_to_first_token_seconds_count"] == 2
    assert found["vllm:inter_token_latency_seconds_count"] == 6
    # The hash model's clock advances 10 ms a step.
    assert found["vllm:inter_token_latency_seconds_sum"] == pytest.approx(0.06)
    assert found["vllm:request_time_per_output_token_seconds_sum"] == pytest.approx(0.02)
    assert found["vllm:e2e_request_latency_seconds_sum"] == pytest.approx(0.08)
    assert found["vllm:request_decode_time_seconds_sum"] == pytest.approx(0.06)
    assert found["vllm:request_params_max_tokens_sum"] == 8
    assert found["vllm:iteration_tokens_total_sum"] == 8 + 6
    assert found["toolkit:steps_total"] == engine.step_number + 1
    assert found["vllm:num_requests_running"] == 0
    assert found["vllm:kv_cache_usage_perc"] == 0


def test_samples_of_one_request_are_counted_each_and_their_number_once() -> None:
    engine, counts = watched()
    engine.add([1, 2, 3, 4], params(3, n=3))
    engine.run_until_idle()
    found = values(counts)
    assert found["vllm:request_success_total/length"] == 3
    assert found["vllm:request_params_n_count"] == 1
    assert found["vllm:request_params_n_sum"] == 3
    assert found["vllm:request_max_num_generation_tokens_count"] == 1
    assert found["vllm:generation_tokens_total"] == 9


def test_a_prefix_that_is_found_again_is_a_hit() -> None:
    engine, counts = watched()
    for _ in range(2):
        engine.add([*range(9)], params(1))
        engine.run_until_idle()
    found = values(counts)
    assert found["vllm:prefix_cache_queries_total"] == 18
    assert found["vllm:prefix_cache_hits_total"] == 8
    assert found["vllm:prompt_tokens_by_source_total/local_compute"] == 10
    assert found["vllm:prompt_tokens_by_source_total/local_cache_hit"] == 8
    assert found["vllm:request_prefill_kv_computed_tokens_sum"] == 10
    assert found["vllm:kv_block_reuse_gap_seconds_count"] == 2


def test_without_a_prefix_cache_nothing_is_looked_up() -> None:
    engine, counts = watched(enable_prefix_caching=False)
    engine.add([1, 2, 3], params(1))
    engine.run_until_idle()
    assert values(counts)["vllm:prefix_cache_queries_total"] == 0


def test_preempted_requests_keep_their_latencies_and_blocks_their_lives() -> None:
    engine, counts = watched(num_blocks=6, max_model_len=24)
    for start in (0, 10, 20):
        engine.add([*range(start, start + 4)], params(12))
    engine.run_until_idle()
    found = values(counts)
    assert found["vllm:num_preemptions_total"] > 0
    assert found["vllm:request_num_preemptions_sum"] == found["vllm:num_preemptions_total"]
    # Every token but each request's first ends a gap, however long it stood still.
    assert found["vllm:inter_token_latency_seconds_count"] == 3 * 11
    gaps_s = found["vllm:inter_token_latency_seconds_sum"]
    assert gaps_s == pytest.approx(found["vllm:request_decode_time_seconds_sum"])
    assert found["vllm:kv_block_lifetime_seconds_count"] == engine.cache.pool.num_evicted
    assert found["vllm:kv_block_lifetime_seconds_count"] > 0


def test_gauges_are_read_at_the_moment_of_the_scrape() -> None:
    engine, counts = watched(max_num_seqs=1)
    first = engine.add([1, 2, 3], params(8))
    engine.add([4, 5, 6], params(8))
    engine.step()
    found = values(counts)
    assert found["vllm:num_requests_running"] == 1
    assert found["vllm:num_requests_waiting"] == 1
    assert found["vllm:num_requests_waiting_by_reason/capacity"] == 1
    assert found["vllm:kv_cache_usage_perc"] == 1 / 16
    engine.abort(first)
    found = values(counts)
    assert found["vllm:num_requests_running"] == 0
    assert found["vllm:request_success_total/abort"] == 1


def test_a_failed_request_is_an_error() -> None:
    engine, counts = watched()
    request = engine.add([1, 2, 3], params(4))
    engine.runner.fail_requests.add(request.id)
    engine.run_until_idle()
    assert values(counts)["vllm:request_success_total/error"] == 1


def test_two_engines_count_apart() -> None:
    engine, counts = watched()
    _, other = watched()
    engine.add([1, 2, 3], params(4))
    engine.run_until_idle()
    assert values(counts)["vllm:generation_tokens_total"] == 4
    assert values(other)["vllm:generation_tokens_total"] == 0


def test_whoever_detaches_leaves_no_listener_behind() -> None:
    engine, counts = watched()
    before = dict(make_engine().events._listeners)
    counts.detach()
    counts.detach()
    engine.add([1, 2, 3], params(4))
    engine.run_until_idle()
    assert engine.events._listeners == before
    assert values(counts)["vllm:generation_tokens_total"] == 0


def test_a_step_costs_as_many_calls_for_many_requests_as_for_few() -> None:
    """Counted, not timed: Python calls inside the counts during a step in which all decode."""

    def num_calls(num_requests: int) -> int:
        engine, _ = watched(
            num_blocks=256, max_num_seqs=64, max_num_batched_tokens=512, max_model_len=64
        )
        for i in range(num_requests):
            engine.add([i % 50, 1, 2], params(8))
        for _ in range(3):
            engine.step()
        calls = 0

        def profile(frame: Any, kind: str, argument: Any) -> None:
            nonlocal calls
            calls += kind == "call" and "toolkit/record/" in frame.f_code.co_filename

        sys.setprofile(profile)
        try:
            engine.step()
        finally:
            sys.setprofile(None)
        return calls

    assert num_calls(4) == num_calls(60) > 0
