"""Run workloads on this engine for alternate.py: one at each line of standard input.

A workload NAME is FOLDER/NAME.json: a list of {"prompt_token_ids": [...], "output_len": n}, all
arriving at once; ``NAME:COUNT`` takes the first COUNT. Greedy, the end of a sequence ignored, the
prefix cache emptied before each run. A workload of one request is streamed and timed by token.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from toolkit import LLM
from toolkit.cli.bench.latency import measure_latency
from toolkit.cli.bench.throughput import measure_throughput
from toolkit.experiments import Workload


def run(llm: LLM, work: Workload) -> dict[str, float]:
    """Return wall seconds and output tokens/s, or TTFT and time per token of a single request."""
    if len(work) == 1:
        latency = measure_latency(llm, work)
        return {name: latency[name] for name in ("ttft_ms", "tpot_ms")}
    throughput = measure_throughput(llm, work)
    return {
        "wall_s": throughput["elapsed_s"],
        "output_tokens_per_s": throughput["output_throughput"],
        "cached": throughput["cached_tokens"],
    }


def main() -> None:
    """Load the model, say READY, run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--workloads", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantization")
    parser.add_argument("--batch-invariant", action="store_true")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--num-threads", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    arguments = parser.parse_args()
    with LLM(
        arguments.model,
        dtype=arguments.dtype,
        quantization=arguments.quantization,
        batch_invariant=arguments.batch_invariant,
        kernels=arguments.kernels,
        num_threads=arguments.num_threads,
        max_model_len=2048,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
    ) as llm:
        print("READY", flush=True)
        for line in sys.stdin:
            name, _, count = line.strip().partition(":")
            path = arguments.workloads / f"{name}.json"
            work = Workload.from_trace(
                path, format="toolkit", num_requests=int(count) if count else None
            )
            print(json.dumps(run(llm, work)), flush=True)


if __name__ == "__main__":
    main()
