"""Measure what the engine itself costs: planning and bookkeeping per step, and recording.

1. schedule + update with 256 running requests over a runner that does nothing. Goal: < 1.0 ms.
2. Output tokens/s on a random 160M Llama with the recorder at its default level against none,
   alternating in one run. Goal: < 3 % lost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from common import mixed_workload, save, spread, write_random_llama

from toolkit import LLM, SamplingParams
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine, SampledToken, StepPlan, StepResult
from toolkit.record import Record
from toolkit.request import Request

NUM_RUNNING = 256
NUM_STEPS = 200


class IdleRunner:
    """Answers every chunk with the same token, at once."""

    def prepare(self, request: Request) -> None:
        """Accept everything."""

    def run(self, plan: StepPlan) -> StepResult:
        """Return a token for each request."""
        token = (SampledToken(7),)
        return StepResult(tokens={chunk.request_id: token for chunk in plan.chunks})

    def release(self, request_id: str) -> None:
        """Hold nothing."""

    def close(self) -> None:
        """Hold nothing."""


def measure_step(record: bool) -> list[float]:
    """Return schedule + update in ms for each of 200 steps with 256 running requests."""
    engine = Engine(
        IdleRunner(),
        EngineConfig(
            cache=CacheConfig(num_blocks=NUM_RUNNING * 32, block_size=16),
            scheduler=SchedulerConfig(
                max_model_len=512,
                max_num_seqs=NUM_RUNNING,
                max_num_batched_tokens=NUM_RUNNING * 64,
            ),
        ),
        recorder=Record() if record else None,
    )
    params = SamplingParams(max_tokens=NUM_STEPS + 10, ignore_eos=True)
    for index in range(NUM_RUNNING):
        engine.add([index + 1] * 40, params)
    engine.step()
    reports = [engine.step() for _ in range(NUM_STEPS)]
    assert all(len(report.plan.chunks) == NUM_RUNNING for report in reports)
    return [1e3 * (report.schedule_s + report.update_s) for report in reports]


def throughput(engine: Engine, num_requests: int) -> float:
    """Return output tokens/s of the mixed workload."""
    engine.reset_prefix_cache()
    start_s = time.perf_counter()
    requests = [
        engine.add(prompt, SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True))
        for prompt, num_output in mixed_workload(num_requests)
    ]
    engine.run_until_idle()
    num_tokens = sum(request.num_output_tokens for request in requests)
    return num_tokens / (time.perf_counter() - start_s)


def measure_recording(folder: Path, pairs: int, num_requests: int) -> dict[str, object]:
    """Alternate an engine that records and one that does not, over the same model."""
    recorded, unrecorded = [], []
    with LLM(str(folder), tokenizer=False, max_model_len=512) as llm:
        silent = Engine(llm.engine.runner, llm.engine.config)
        throughput(silent, num_requests)  # warm-up
        for _ in range(pairs):
            recorded.append(throughput(llm.engine, num_requests))
            unrecorded.append(throughput(silent, num_requests))
    lost = [100 * (1 - a / b) for a, b in zip(recorded, unrecorded, strict=True)]
    return {
        "tokens_per_s_recorded": spread(recorded),
        "tokens_per_s_unrecorded": spread(unrecorded),
        "lost_percent": spread(lost),
    }


def main() -> None:
    """Run both measurements and write results/engine_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=32)
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "schedule_and_update_ms_per_step_256_running": spread(measure_step(record=False)),
        "the_same_with_recorder": spread(measure_step(record=True)),
    }
    with tempfile.TemporaryDirectory() as folder:
        model = write_random_llama(Path(folder))
        results["recording"] = measure_recording(model, arguments.pairs, arguments.requests)
    save("engine_cost", results)


if __name__ == "__main__":
    main()
