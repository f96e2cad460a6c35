"""Measure what is left of the throughput when another process keeps one core busy.

    python kernels/bench/contention.py [--model FOLDER] [--repeats 5] [--spincount 3000]

The workload is 32 mixed requests; quiet and contended runs alternate. How long idle threads spin
decides it, and `toolkit.threads` sets that; --spincount tries another setting, in
$GOMP_SPINCOUNT. Writes results/contention.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

from common import mixed_workload, save, spread, write_random_llama

from toolkit import LLM
from toolkit.cli.bench.throughput import measure_throughput
from toolkit.experiments import Workload


def keep_busy(core: int) -> None:
    """Compute on one core until the process is ended."""
    os.sched_setaffinity(0, {core})
    number = 1
    while True:
        number = number * 5 % 1_000_003


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; default: a random Llama of 134 M parameters")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--spincount", help="GOMP_SPINCOUNT in place of the toolkit's")
    options = parser.parse_args()
    if options.spincount and os.environ.get("GOMP_SPINCOUNT") != options.spincount:
        os.environ["GOMP_SPINCOUNT"] = options.spincount
        os.execv(sys.executable, [sys.executable, *sys.argv])  # OpenMP read it when torch loaded
    core = max(os.sched_getaffinity(0))
    work = Workload.from_prompts(*zip(*mixed_workload(), strict=True))
    runs: dict[str, list[float]] = {"quiet": [], "contended": []}
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(write_random_llama(Path(folder)))
        with LLM(model, dtype="bfloat16", kernels="cpu", tokenizer=False) as llm:
            measure_throughput(llm, work)
            for _ in range(options.repeats):
                runs["quiet"].append(measure_throughput(llm, work)["output_throughput"])
                other = multiprocessing.get_context("spawn").Process(target=keep_busy, args=(core,))
                other.start()
                time.sleep(2)  # until it computes
                runs["contended"].append(measure_throughput(llm, work)["output_throughput"])
                other.kill()
                other.join()
    kept = [busy / quiet for quiet, busy in zip(runs["quiet"], runs["contended"], strict=True)]
    name = "contention" if not options.spincount else f"contention_{options.spincount}"
    save(
        name,
        {f"{kind}_output_tokens_per_s": spread(rates) for kind, rates in runs.items()}
        | {"kept": spread(kept)},
    )


if __name__ == "__main__":
    main()
