"""Measure how fast the simulator is: output tokens in a second of one core's time.

1. 16 to 256 requests run at a time, each with 100 prompt and 200 output tokens; whoever ends is
   followed by another. Goal: 200,000 tokens/s from 64 on.
2. Where a step's time goes, with as many running: scheduler, runner, engine, recorder.

Nothing but the process's own time counts, and of several rounds the best is kept beside the median.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from common import save, spread

import toolkit.engine.engine as engine_module
from toolkit.engine import Engine
from toolkit.simulate import Arrival, Machine, add_arrival, drive

BATCHES = (16, 64, 128, 256)
NUM_PROMPT, NUM_OUTPUT = 100, 200
REQUESTS_PER_SEAT = 4
NUM_STEPS = 150


def machine() -> Machine:
    """Return the machine of all measurements."""
    return Machine("llama-3-8b", "H100")


def tokens_per_s(batch: int) -> float:
    """Return simulated output tokens per second of the process's time."""
    num_requests = REQUESTS_PER_SEAT * batch
    load = [
        Arrival(number, 0.0, NUM_PROMPT, NUM_OUTPUT, after=max(-1, number - batch))
        for number in range(num_requests)
    ]
    engine = machine().engine(max_num_seqs=batch)
    start_s = time.process_time()
    drive(engine, load, progress=False)
    return num_requests * NUM_OUTPUT / (time.process_time() - start_s)


def step_parts(batch: int) -> dict[str, float]:
    """Return microseconds per token of a step's parts, medians over steps that only generate."""
    engine = machine().engine(max_num_seqs=batch, max_num_batched_tokens=batch * NUM_PROMPT)
    for number in range(batch):
        add_arrival(engine, Arrival(number, 0.0, NUM_PROMPT, 2 * NUM_STEPS), 0.0)
    engine.step()
    times: dict[str, list[float]] = defaultdict(list)
    targets: list[tuple[Any, str]] = [
        (engine.scheduler, "schedule"),
        (engine.runner, "run"),
        (engine.scheduler, "update"),
        (engine, "_deliver"),
        (engine.scheduler, "settle"),
        (engine_module, "emit_step_events"),
    ]
    emit = engine_module.emit_step_events
    for owner, name in targets:
        setattr(owner, name, timed(getattr(owner, name), times[name]))
    try:
        run_steps(engine, times["whole"])
    finally:
        engine_module.emit_step_events = emit
    return {name: round(1e6 * median(values) / batch, 3) for name, values in times.items()}


def run_steps(engine: Engine, durations_s: list[float]) -> None:
    """Run steps and note how long each took."""
    step = timed(engine.step, durations_s)
    for _ in range(NUM_STEPS):
        step()


def timed(function: Callable[..., Any], durations_s: list[float]) -> Callable[..., Any]:
    """Return the function with a stopwatch."""

    def measured(*arguments: Any, **options: Any) -> Any:
        start_s = time.process_time()
        result = function(*arguments, **options)
        durations_s.append(time.process_time() - start_s)
        return result

    return measured


def main() -> None:
    """Run both measurements and write results/simulator_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    for batch in BATCHES:
        tokens_per_s(batch)  # to warm up
        speeds = [tokens_per_s(batch) for _ in range(arguments.rounds)]
        results[f"output_tokens_per_s_{batch}_running"] = spread(speeds)
        results[f"step_us_per_token_{batch}_running"] = step_parts(batch)
    save("simulator_speed", results)


if __name__ == "__main__":
    main()
