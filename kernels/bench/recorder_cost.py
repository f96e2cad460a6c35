"""Measure what recording costs at each level: the same requests, with and without, in turn.

1. The recorder alone: microseconds that a step of 16 and 64 decoding requests takes over a runner
   that does nothing. Goals at 64: < 60 us for "requests", < 150 us for "tokens", the default.
2. Output tokens/s with the bundled model and with a random 160M Llama, at batches of 16 and 64, in
   parts of what they are without a recorder. Goal: > 0.97 for the random model at "tokens".

Each round runs every level once, in an order that turns from round to round, and ratios are taken
within a round: what disturbs the machine for longer than a round disturbs them all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from common import save, spread, write_random_llama
from engine_cost import IdleRunner

from toolkit import LLM, SamplingParams
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.record import Record

LEVELS = ("off", "requests", "tokens", "blocks", "explain")
BATCHES = (16, 64)
NUM_PROMPT = 32
STEPS_PER_ROUND = 40


def idle_engine(level: str, batch: int, num_output: int) -> Engine:
    """Return an engine whose requests have all had their first token."""
    engine = Engine(
        IdleRunner(),
        EngineConfig(
            cache=CacheConfig(num_blocks=batch * (num_output // 16 + 4), block_size=16),
            scheduler=SchedulerConfig(
                max_model_len=NUM_PROMPT + num_output + 1,
                max_num_seqs=batch,
                max_num_batched_tokens=batch * NUM_PROMPT,
            ),
        ),
        recorder=None if level == "off" else Record(level=level),
    )
    params = SamplingParams(max_tokens=num_output, ignore_eos=True)
    for index in range(batch):
        engine.add([index + 1] * NUM_PROMPT, params)
    engine.step()
    return engine


def step_costs(batch: int, rounds: int) -> dict[str, float]:
    """Return the median microseconds of a step, by level, over an idle runner."""
    num_output = rounds * STEPS_PER_ROUND + 2
    engines = {level: idle_engine(level, batch, num_output) for level in LEVELS}
    taken: dict[str, list[float]] = {level: [] for level in LEVELS}
    for turn in range(rounds):
        for level in turned(turn):
            for _ in range(STEPS_PER_ROUND):
                start_s = time.perf_counter()
                engines[level].step()
                taken[level].append(1e6 * (time.perf_counter() - start_s))
    return {level: round(median(each), 1) for level, each in taken.items()}


def throughput(engine: Engine, batch: int, num_output: int) -> float:
    """Return output tokens/s of requests that all run at once."""
    rng = Random(0)
    engine.reset_prefix_cache()
    params = SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True)
    start_s = time.perf_counter()
    requests = [
        engine.add([rng.randrange(3, 200) for _ in range(NUM_PROMPT)], params) for _ in range(batch)
    ]
    engine.run_until_idle()
    num_tokens = sum(request.num_output_tokens for request in requests)
    return num_tokens / (time.perf_counter() - start_s)


def model_ratios(llm: LLM, batch: int, rounds: int, num_output: int) -> dict[str, Any]:
    """Return tokens/s without a recorder, and each level's in parts of it."""
    silent = Engine(llm.engine.runner, llm.engine.config)
    speeds: dict[str, list[float]] = {level: [] for level in LEVELS}
    throughput(silent, batch, num_output)  # warm-up
    for turn in range(rounds):
        for level in turned(turn):
            if level == "off":
                speeds[level].append(throughput(silent, batch, num_output))
            else:
                llm.engine.record.level = level
                speeds[level].append(throughput(llm.engine, batch, num_output))
    llm.engine.record.level = "tokens"  # else the sampler goes on explaining
    return {
        "off_tokens_per_s": spread(speeds["off"]),
        **{
            f"{level}_by_off": spread(
                [with_it / off for with_it, off in zip(speeds[level], speeds["off"], strict=True)]
            )
            for level in LEVELS[1:]
        },
    }


def turned(turn: int) -> tuple[str, ...]:
    """Return the levels from another one on: each takes each place equally often."""
    first = turn % len(LEVELS)
    return LEVELS[first:] + LEVELS[:first]


def main() -> None:
    """Run both measurements and write results/recorder_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--bundled-only", action="store_true", help="leave out the 160M model")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "step_us_idle_runner": {
            f"batch {batch}": step_costs(batch, arguments.rounds) for batch in BATCHES
        }
    }
    print(results)
    with tempfile.TemporaryDirectory() as folder:
        models = {"bundled": None}
        if not arguments.bundled_only:
            models["random_160M"] = str(write_random_llama(Path(folder)))
        for name, path in models.items():
            with LLM(path, tokenizer=False, max_model_len=256, max_num_seqs=64) as llm:
                results[name] = {
                    f"batch {batch}": model_ratios(llm, batch, arguments.rounds, arguments.output)
                    for batch in BATCHES
                }
            print(name, results[name])
    save("recorder_cost", results)


if __name__ == "__main__":
    main()
