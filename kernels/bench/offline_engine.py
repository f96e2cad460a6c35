"""Run nano-vllm's offline benchmark on a CUDA device: tokens/s, and the part of the least time.

256 requests at once, 100 to 1,024 random tokens in and as many out, over Qwen3's shapes with
random weights. The least time is that of every step's bytes at the measured read bandwidth, or of
its operations at the measured rate of products, whichever is more. Each way of running them is a
row: as it is, in batch-invariant mode, and by transformers' own continuous batching.

    python kernels/bench/offline_engine.py --model qwen3-8b [--ways toolkit ...] [--dry-run]

Writes results/offline_engine_MODEL.json after every way, so that what is done is not lost.
``--dry-run`` takes a tiny model and few tokens, on a CPU too: its figures say nothing.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import bench_device, require_cuda, save
from random_models import MAX_LEN, SHAPES

from toolkit import LLM
from toolkit.cli.bench.limits import MachineLimits, measure_limits
from toolkit.cli.bench.model_work import head_weights, layer_weights, weight_bytes
from toolkit.cli.bench.throughput import measure_throughput
from toolkit.experiments import Workload
from toolkit.experiments.catalogue.offline_throughput_ladder import nano_vllm_workload

Row = dict[str, Any]
BLOCK_SIZE = 16
NUM_SEQS, NUM_BATCHED_TOKENS = 256, 16_384
VOCAB = 10_001  # token ids of the prompts, as nano-vllm draws them
DRY_LIMITS = MachineLimits(num_threads=1, dtype="bfloat16", read=1e10, gemm=1e11)
HOST_PARTS = ("schedule_s", "prepare_s", "update_s", "host_gap_s")


def measure_toolkit(
    folder: Path, load: Workload, limits: MachineLimits, *, batch_invariant: bool = False
) -> Row:
    """Run the load after a short one that compiles; return the figures and their shares."""
    num_tokens = int(sum(load.columns.num_prompt_tokens + load.columns.num_output_tokens))
    options: dict[str, Any] = {"kernels": "triton"} if bench_device().type == "cuda" else {}
    with LLM(
        str(folder),
        device=str(bench_device()),
        dtype="bfloat16",
        tokenizer=False,
        enable_prefix_caching=False,
        batch_invariant=batch_invariant,
        block_size=BLOCK_SIZE,
        num_kv_blocks=max(num_tokens // BLOCK_SIZE + 2 * len(load), MAX_LEN // BLOCK_SIZE),
        max_model_len=MAX_LEN,
        max_num_seqs=NUM_SEQS,
        max_num_batched_tokens=NUM_BATCHED_TOKENS,
        **options,
    ) as llm:
        measure_throughput(llm, shortened(load))
        runner = llm.engine.runner
        if runner.graphs is not None:  # else the first step of each size would wait for its graph
            llm.engine.between_steps(partial(runner.capture_graphs, progress=False))
        num_before = len(llm.engine.record.steps)
        figures = measure_throughput(llm, load)
        steps = llm.engine.record.steps.iloc[num_before:]
        least_s = least_seconds(llm.engine.runner.decoder.spec, steps, limits)
    elapsed_s = figures["elapsed_s"]
    return {
        "output_tokens_per_s": round(figures["output_throughput"], 1),
        "elapsed_s": round(elapsed_s, 2),
        "num_steps": len(steps),
        "fraction_of_least_time": round(least_s / elapsed_s, 3),
        "host_share": round(float(steps[list(HOST_PARTS)].sum().sum()) / elapsed_s, 3),
    }


def least_seconds(spec: Any, steps: Any, limits: MachineLimits) -> float:
    """Add up the least times of steps, in bfloat16; weights and contexts are read once a step."""
    kv_bytes = 4 * spec.attention.kv_dim * spec.num_layers  # keys and values of a position
    num_sampled = steps.num_requests
    flops = 2.0 * layer_weights(spec) * steps.num_tokens + 2.0 * head_weights(spec) * num_sampled
    flops += 4.0 * spec.attention.query_dim * spec.num_layers * steps.attention_work
    num_bytes = weight_bytes(spec, 2) + kv_bytes * steps.context_tokens
    pairs = zip(num_bytes, flops, strict=True)
    return sum(limits.least_s(num_bytes=size, flops=work) for size, work in pairs)


def measure_transformers(folder: Path, load: Workload, limits: MachineLimits) -> Row:
    """Run the same load by transformers' continuous batching, greedy, after a short one."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model = model.to(bench_device()).eval()
    config = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=MAX_LEN)
    with model.continuous_batching_context_manager(generation_config=config) as manager:
        run_requests(manager, shortened(load))
        started = time.perf_counter()
        num_tokens = run_requests(manager, load)
        elapsed_s = time.perf_counter() - started
    return {
        "output_tokens_per_s": round(num_tokens / elapsed_s, 1),
        "elapsed_s": round(elapsed_s, 2),
    }


def run_requests(manager: Any, load: Workload) -> int:
    """Ask for the load at once; return the tokens that came."""
    lengths = load.columns.num_output_tokens.tolist()
    for index, length in enumerate(lengths):
        prompt = load.prompt_token_ids(index, VOCAB)
        manager.add_request(prompt, max_new_tokens=length)
    num_done = num_tokens = 0
    while num_done < len(lengths):
        result = manager.get_result(timeout=1)
        if result is None and not manager.is_running():
            raise RuntimeError("transformers' generation thread ended; its log says why")
        if result is not None and result.is_finished():
            if result.error is not None:
                raise RuntimeError(f"transformers failed a request: {result.error}")
            num_done, num_tokens = num_done + 1, num_tokens + len(result.generated_tokens)
    return num_tokens


def shortened(load: Workload) -> Workload:
    """Return the load with its prompts and a few tokens for each: kernels are compiled by it."""
    prompts = [load.prompt_token_ids(index, VOCAB) for index in range(len(load))]
    return Workload.from_prompts(prompts, [2] * len(load))


def invariant(folder: Path, load: Workload, limits: MachineLimits) -> Row:
    """Run the load in batch-invariant mode."""
    return measure_toolkit(folder, load, limits, batch_invariant=True)


WAYS: dict[str, Callable[[Path, Workload, MachineLimits], Row]] = {
    "toolkit": measure_toolkit,
    "transformers": measure_transformers,
    "batch-invariant": invariant,
}


def main() -> None:
    """Measure the ways asked for and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen3-0.6b", choices=list(SHAPES))
    parser.add_argument("--ways", nargs="+", default=["toolkit", "transformers"], choices=WAYS)
    parser.add_argument("--requests", type=int, default=256, help="the first so many of the 256")
    parser.add_argument("--name", help="of the results' file, in place of the model's")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    is_dry = arguments.dry_run
    device = require_cuda(is_dry_run=is_dry)
    load = nano_vllm_workload(3, 50) if is_dry else nano_vllm_workload(arguments.requests)
    limits = DRY_LIMITS if is_dry else measure_limits(torch.bfloat16, device)
    results: Row = {
        "is_dry_run": is_dry,
        "model": "tiny" if is_dry else arguments.model,
        "num_requests": len(load),
        "num_output_tokens": int(load.columns.num_output_tokens.sum()),
        "read_gb_per_s": round(limits.read / 1e9),
        "product_tflop_per_s": round(limits.gemm / 1e12, 1),
        "ways": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = SHAPES[results["model"]].write(Path(name))
        for way in arguments.ways:
            gc.collect()
            torch.cuda.empty_cache()
            results["ways"][way] = WAYS[way](folder, load, limits)
            save(f"offline_engine_{arguments.name or arguments.model}", results)


if __name__ == "__main__":
    main()
