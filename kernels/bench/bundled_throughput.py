"""Serve 64 requests at once from the bundled model, greedy and sampled, and say where time goes.

    python kernels/bench/bundled_throughput.py [--repeats 7]

A model of 5 million parameters leaves the engine no place to hide: a step takes milliseconds. Kinds
of requests alternate; output tokens/s are medians over the repeats, and so are the parts of a step
with one token per request. Writes results/bundled_throughput.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from common import save, spread

from toolkit import LLM, SamplingParams
from toolkit.demo import WEIGHTS

NUM_REQUESTS = 64
NUM_PROMPT_TOKENS = 32
NUM_OUTPUT_TOKENS = 128
KINDS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8},
    "sampled, top-p": {"temperature": 0.8, "top_p": 0.95},
}
PARTS = ("schedule_s", "prepare_s", "forward_s", "sample_s", "update_s", "duration_s")


def run(llm: LLM, options: dict[str, Any]) -> dict[str, float]:
    """Generate once; return output tokens/s, and the parts of a median step in ms."""
    prompts = [
        [5 + (7 * request + 3 * i) % 2000 for i in range(NUM_PROMPT_TOKENS)]
        for request in range(NUM_REQUESTS)
    ]
    params = [
        SamplingParams(max_tokens=NUM_OUTPUT_TOKENS, ignore_eos=True, seed=seed, **options)
        for seed in range(NUM_REQUESTS)
    ]
    llm.reset_prefix_cache()
    decoder = llm.engine.runner.decoder
    first_step = len(llm.engine.record.steps)
    before = dict(decoder.fused.seconds) if decoder.fused else {}
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, progress=False)
    elapsed = time.perf_counter() - start
    steps = llm.engine.record.steps.iloc[first_step:]
    count = sum(len(output.outputs[0].token_ids) for output in outputs)
    assert count == NUM_REQUESTS * NUM_OUTPUT_TOKENS
    figures = {"output_tokens_per_s": count / elapsed}
    decoding = steps[steps.num_prompt_tokens == 0]
    figures |= {f"{part[:-2]}_ms": 1e3 * decoding[part].median() for part in PARTS}
    if decoder.fused:
        taken = decoder.fused.seconds
        figures |= {
            f"layers_{part}_ms": 1e3 * (taken[part] - before[part]) / len(steps) for part in before
        }
    return figures


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    sizes = {"max_num_seqs": NUM_REQUESTS, "max_num_batched_tokens": 2048}
    with LLM(str(WEIGHTS), dtype=options.dtype, kernels="cpu", **sizes) as llm:
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for repeat in range(options.repeats + 1):
            for kind, sampling in KINDS.items():
                figures = run(llm, sampling)
                if repeat > 0:
                    runs[kind].append(figures)
    results = {
        kind: {name: spread([run[name] for run in some]) for name in some[0]}
        for kind, some in runs.items()
    }
    for kind, figures in results.items():
        print(kind, {name: value["median"] for name, value in figures.items()})
    save("bundled_throughput", {"dtype": options.dtype, "num_requests": NUM_REQUESTS} | results)


if __name__ == "__main__":
    main()
