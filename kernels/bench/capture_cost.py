"""Measure what capturing costs: the residual sum after every layer, of every request.

    python kernels/bench/capture_cost.py [--repeats 5] [--model FOLDER] [--output capture_cost]

Workload W1 (common.mixed_workload) on a random Llama of 134 M parameters in bf16, plain and with
`llm.hooks.capture("layers.*.resid_post")`, in turns; a model of your own takes its place with
--model. Compared are output tokens/s. Goal: plain is at most 1.5 times as fast. A steered request
among plain ones is measured beside it. Writes results/OUTPUT.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from common import mixed_workload, save, spread, write_random_llama

from toolkit import LLM, SamplingParams, Steer


def run(llm: LLM, context: Callable[[], Any], hooks: list[list[Any]]) -> float:
    """Generate W1 once; return output tokens/s."""
    work = mixed_workload(len(hooks))
    params = [SamplingParams(max_tokens=n, ignore_eos=True, temperature=0) for _, n in work]
    llm.reset_prefix_cache()
    start = time.perf_counter()
    with context():
        outputs = llm.generate([prompt for prompt, _ in work], params, hooks=hooks, progress=False)
    elapsed = time.perf_counter() - start
    assert all(output.error is None for output in outputs)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / elapsed


def measure(llm: LLM, repeats: int, num_requests: int) -> dict[str, Any]:
    """Let the ways take turns; return their rates, and how much faster plain is."""
    hidden_size = llm.engine.runner.decoder.spec.hidden_size
    steer = Steer([0.01] * hidden_size, layer=0)
    plain: list[list[Any]] = [[] for _ in range(num_requests)]
    ways: dict[str, tuple[Callable[[], Any], list[list[Any]]]] = {
        "plain": (nullcontext, plain),
        "captured": (lambda: llm.hooks.capture("layers.*.resid_post"), plain),
        "one_steered": (nullcontext, [[steer], *plain[1:]]),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for context, hooks in ways.values():  # to warm up
        run(llm, context, hooks)
    for _ in range(repeats):
        for name, (context, hooks) in ways.items():
            rates[name].append(run(llm, context, hooks))
    ratios = {
        f"plain_to_{name}": spread([a / b for a, b in zip(rates["plain"], own, strict=True)])
        for name, own in rates.items()
        if name != "plain"
    }
    return {"output_tokens_per_s": {name: spread(own) for name, own in rates.items()}, **ratios}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--model")
    parser.add_argument("--output", default="capture_cost")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or str(write_random_llama(Path(folder)))
        with LLM(path, tokenizer=False) as llm:
            save(args.output, {"goal": 1.5, **measure(llm, args.repeats, args.requests)})


if __name__ == "__main__":
    main()
