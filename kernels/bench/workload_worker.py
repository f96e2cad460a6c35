"""Run workloads on this engine for alternate.py: one at each line of standard input.

A workload NAME is FOLDER/NAME.json: a list of {"prompt_token_ids": [...], "output_len": n}, all
arriving at once; ``NAME:COUNT`` takes the first COUNT. Greedy, the end of a sequence ignored, the
prefix cache emptied before each run. A workload of one request is streamed and timed by token.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from toolkit import LLM, SamplingParams


def run(llm: LLM, work: list[dict[str, object]]) -> dict[str, float]:
    """Return wall seconds and output tokens/s, or TTFT and time per token of a single request."""
    llm.reset_prefix_cache()
    prompts = [item["prompt_token_ids"] for item in work]
    params = [
        SamplingParams(temperature=0, max_tokens=item["output_len"], ignore_eos=True)
        for item in work
    ]
    start_s = time.perf_counter()
    if len(work) == 1:
        times = []
        for piece in llm.stream(prompts[0], params[0]):
            times += [time.perf_counter()] * len(piece.token_ids)
        tpot_s = (times[-1] - times[0]) / (len(times) - 1)
        return {"ttft_ms": 1e3 * (times[0] - start_s), "tpot_ms": 1e3 * tpot_s}
    outputs = llm.generate(prompts, params, progress=False)
    wall_s = time.perf_counter() - start_s
    num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    assert num_tokens == sum(item["output_len"] for item in work)
    cached = sum(output.num_cached_tokens or 0 for output in outputs)
    return {"wall_s": wall_s, "output_tokens_per_s": num_tokens / wall_s, "cached": cached}


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
            work = json.loads(path.read_text(encoding="utf-8"))
            print(json.dumps(run(llm, work[: int(count)] if count else work)), flush=True)


if __name__ == "__main__":
    main()
