"""An engine's metrics for Prometheus, under vLLM's names wherever the meaning is vLLM's.

So vLLM's public dashboards work. Names, labels (``model_name``, ``engine``) and bucket bounds are
vLLM's; what it has no name for starts with ``toolkit:``. Left out is what does not exist here:
external, multimodal and LoRA caches, sleep states, estimated FLOPs and bytes, admission limits of
a queue, and the ``_created`` series, which repeat when a server started. Two meanings are sharper:
time per output token is not observed for answers of one token, where vLLM writes 0; and the block
histograms cover every block, where vLLM samples.

Nothing is computed before somebody asks: the families are built at each scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from toolkit.record.engine_counts import EngineCounts
from toolkit.record.histogram import Histogram

__all__ = ["EngineCollector", "metrics_registry"]

# Name, where EngineCounts has it, help. The text format adds _total to the names of counters.
COUNTERS = (
    (
        "vllm:prefix_cache_queries",
        "requests.queried_tokens",
        "Prompt tokens looked up in the prefix cache.",
    ),
    ("vllm:prefix_cache_hits", "requests.cached_tokens", "Prompt tokens found in that cache."),
    ("vllm:num_preemptions", "num_preemptions", "Requests that lost their blocks."),
    ("vllm:prompt_tokens", "requests.prompt_tokens", "Tokens of prompts, cached ones too."),
    ("vllm:prompt_tokens_cached", "requests.cached_tokens", "Tokens of prompts, cached ones only."),
    ("vllm:generation_tokens", "generation_tokens", "Sampled tokens."),
    ("toolkit:steps", "num_steps", "Steps of the engine."),
)
HISTOGRAMS = (
    ("vllm:iteration_tokens_total", "step_tokens", "Tokens computed in a step."),
    ("vllm:time_to_first_token_seconds", "requests.first_token_s", "From arrival to first token."),
    ("vllm:inter_token_latency_seconds", "inter_token_s", "Between two tokens of a request."),
    (
        "vllm:request_time_per_output_token_seconds",
        "requests.per_output_token_s",
        "Mean over the tokens of a request after the first.",
    ),
    ("vllm:e2e_request_latency_seconds", "requests.end_to_end_s", "From arrival to end."),
    ("vllm:request_queue_time_seconds", "requests.queue_s", "In line before the first step."),
    ("vllm:request_prefill_time_seconds", "requests.prefill_s", "First step to first token."),
    ("vllm:request_decode_time_seconds", "requests.decode_s", "First token to last token."),
    ("vllm:request_inference_time_seconds", "requests.inference_s", "First step to last token."),
    ("vllm:request_prompt_tokens", "requests.num_prompt_tokens", "Length of the prompt."),
    ("vllm:request_generation_tokens", "requests.num_output_tokens", "Length of the output."),
    (
        "vllm:request_max_num_generation_tokens",
        "requests.max_output_tokens",
        "Length of the longest sample of a request.",
    ),
    ("vllm:request_params_n", "requests.n_param", "Samples asked for."),
    ("vllm:request_params_max_tokens", "requests.max_tokens_param", "Output tokens asked for."),
    (
        "vllm:request_prefill_kv_computed_tokens",
        "requests.num_computed_tokens",
        "Prompt tokens that were not cached.",
    ),
    ("vllm:request_num_preemptions", "requests.num_preemptions", "Preemptions of a request."),
    ("vllm:kv_block_lifetime_seconds", "blocks.lifetime_s", "From being taken to the eviction."),
    (
        "vllm:kv_block_idle_before_evict_seconds",
        "blocks.idle_s",
        "From the last use to the eviction.",
    ),
    ("vllm:kv_block_reuse_gap_seconds", "blocks.reuse_gap_s", "Between two uses of a block."),
    (
        "toolkit:host_gap_seconds",
        "host_gap_s",
        "Between two steps while work stood still: a busy kernel.",
    ),
    (
        "toolkit:request_grammar_wait_seconds",
        "requests.grammar_wait_s",
        "In line until the grammar of a request was compiled.",
    ),
)


def metrics_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of its own: these collectors, the process, Python and its collections.

    Never prometheus_client's global one: several servers run in one process.
    """
    registry = CollectorRegistry(auto_describe=False)
    for standard in (GCCollector, PlatformCollector, ProcessCollector):
        standard(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


class EngineCollector(Collector):
    """Writes the counts of one engine as families of Prometheus.

    Args:
        counts: Filled by the engine's thread.
        model_name: The label of every series.
    """

    def __init__(self, counts: EngineCounts, *, model_name: str) -> None:
        self._counts = counts
        self._labels = {"model_name": model_name, "engine": "0"}

    def describe(self) -> Iterable[Metric]:
        """Tell a registry which names belong here, for scrapes that ask for some alone."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its present values."""
        yield from self._gauges()
        yield self._cache_config()
        yield from self._counters()
        for name, path, help_text in HISTOGRAMS:
            histogram: Histogram = attrgetter(path)(self._counts)
            family = HistogramMetricFamily(name, help_text, labels=list(self._labels))
            family.add_metric(
                list(self._labels.values()), histogram.cumulative(), sum_value=histogram.sum
            )
            yield family

    def _gauges(self) -> Iterator[Metric]:
        engine = self._counts.engine
        pool = engine.cache.pool
        for name, help_text, value in (
            ("num_requests_running", "Requests that hold blocks.", engine.scheduler.num_running),
            ("num_requests_waiting", "Requests in line.", engine.scheduler.num_waiting),
            (
                "kv_cache_usage_perc",
                "Share of the KV cache's blocks that are held; 1 is all.",
                pool.num_used / pool.num_blocks,
            ),
        ):
            yield self._single(GaugeMetricFamily, f"vllm:{name}", help_text, value)
        yield self._family(
            GaugeMetricFamily,
            "vllm:num_requests_waiting_by_reason",
            "Requests in line: for capacity, or deferred by a policy, a sibling or a grammar.",
            by="reason",
            values=self._counts.waiting_by_reason(),
        )

    def _cache_config(self) -> Metric:
        config = self._counts.engine.config
        num_slots = config.cache.num_slots
        facts = {
            "block_size": config.cache.block_size,
            "num_gpu_blocks": config.cache.num_blocks,
            "enable_prefix_caching": config.cache.enable_prefix_caching,
            "kv_cache_size_tokens": num_slots,
            "kv_cache_max_concurrency": num_slots / config.scheduler.max_model_len,
        }
        labels = {**self._labels, **{name: str(value) for name, value in facts.items()}}
        family = GaugeMetricFamily(
            "vllm:cache_config_info", "The KV cache's settings.", labels=list(labels)
        )
        family.add_metric(list(labels.values()), 1.0)
        return family

    def _counters(self) -> Iterator[Metric]:
        for name, path, help_text in COUNTERS:
            yield self._single(CounterMetricFamily, name, help_text, attrgetter(path)(self._counts))
        requests = self._counts.requests
        cached = requests.cached_tokens
        yield self._family(
            CounterMetricFamily,
            "vllm:prompt_tokens_by_source",
            "Tokens of prompts by where their keys and values came from.",
            by="source",
            values={
                "local_compute": requests.prompt_tokens - cached,
                "local_cache_hit": cached,
            },
        )
        yield self._family(
            CounterMetricFamily,
            "vllm:prompt_tokens_cached_by_source",
            "Cached tokens of prompts by the memory that had them.",
            by="source",
            values={"device": cached},
        )
        yield self._family(
            CounterMetricFamily,
            "vllm:request_success",
            "Requests that ended, by reason.",
            by="finished_reason",
            values=requests.ended.copy(),
        )

    # ---- small things

    def _single(self, kind: Any, name: str, help_text: str, value: float) -> Metric:
        """Return a family of one series."""
        family: Metric = kind(name, help_text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)  # type: ignore[attr-defined]
        return family

    def _family(
        self, kind: Any, name: str, help_text: str, *, by: str, values: Mapping[str, float]
    ) -> Metric:
        """Return a family with one more label, whose values are the keys of ``values``."""
        family = kind(name, help_text, labels=[*self._labels, by])
        for label, value in values.items():
            family.add_metric([*self._labels.values(), label], value)
        return family
