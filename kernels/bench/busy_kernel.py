"""Measure serving from a notebook whose cells compute: one process has one interpreter lock.

    python kernels/bench/busy_kernel.py [--repeats 5]

16 streams of the bundled model, read by another process (stream_client.py), while this process is
idle, spins in pure Python, or computes with pandas. Servers: in this process with Python's own
switch interval of 5 ms; in this process as `serve()` starts it; the same with one thread for the
engine, so that the cell has a core of its own; and `serve(..., process=True)`. Rounds alternate
between the cells, so that drift of the machine hits all of them. Writes results/busy_kernel.json.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from common import save, spread
from stream_client import StreamClient

from toolkit import serve
from toolkit.demo import WEIGHTS

NUM_STREAMS = 16
NUM_PROMPT_TOKENS = 32
NUM_OUTPUT_TOKENS = 96
PYTHONS_OWN_INTERVAL_S = 0.005
SERVERS: dict[str, dict[str, Any]] = {
    "in process, 5 ms switch interval": {},
    "in process": {},
    "in process, one thread": {"num_threads": 1},
    "process=True": {"process": True},
}


def idle(stop: threading.Event) -> None:
    """Do nothing."""
    stop.wait()


def spin(stop: threading.Event) -> None:
    """Compute in pure Python."""
    number = 1
    while not stop.is_set():
        for _ in range(10_000):
            number = number * 5 % 1_000_003


def pandas_cell(stop: threading.Event) -> None:
    """Group, sort and map a table, again and again."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"key": rng.integers(0, 1000, 200_000), "value": rng.random(200_000)})
    while not stop.is_set():
        table.groupby("key").value.mean()
        table.sort_values("value")
        table.value.map(lambda value: value + 1)


CELLS: dict[str, Callable[[threading.Event], None]] = {
    "idle": idle,
    "pure Python": spin,
    "pandas": pandas_cell,
}


@contextmanager
def running(cell: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a cell in a thread of this interpreter for the length of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=cell, args=(stop,))
    thread.start()
    time.sleep(0.3)  # until it computes
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(client: StreamClient, port: int, seed: int) -> dict[str, float]:
    """Return output tokens/s, and the gaps between two pieces of a stream in ms."""
    bodies = [
        {
            "prompt": [5 + (7 * k + 3 * i + seed) % 2000 for i in range(NUM_PROMPT_TOKENS)],
            "max_tokens": NUM_OUTPUT_TOKENS,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for k in range(NUM_STREAMS)
    ]
    streams = client.stream(port, "/v1/completions", bodies)
    elapsed_s = max(s["end_s"] for s in streams) - min(s["sent_s"] for s in streams)
    gaps = np.concatenate([np.diff([at for at, _ in s["pieces"]]) for s in streams])
    first = [s["first_text_s"] - s["sent_s"] for s in streams]
    return {
        "output_tokens_per_s": sum(s["num_tokens"] for s in streams) / elapsed_s,
        "itl_p50_ms": 1e3 * float(np.percentile(gaps, 50)),
        "itl_p99_ms": 1e3 * float(np.percentile(gaps, 99)),
        "ttft_p50_ms": 1e3 * float(np.median(first)),
    }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    own_interval_s = sys.getswitchinterval()
    with StreamClient() as client:
        for name, settings in SERVERS.items():
            runs: dict[str, list[dict[str, float]]] = {cell: [] for cell in CELLS}
            with serve(str(WEIGHTS), port=0, dtype="bfloat16", **settings) as server:
                if "switch interval" in name:
                    sys.setswitchinterval(PYTHONS_OWN_INTERVAL_S)
                for repeat in range(options.repeats + 1):
                    for cell, work in CELLS.items():
                        with running(work):
                            figures = measure(client, server.port, seed=repeat)
                        if repeat > 0:  # the first warms up
                            runs[cell].append(figures)
            sys.setswitchinterval(own_interval_s)
            results[name] = {
                cell: {figure: spread([run[figure] for run in some]) for figure in some[0]}
                for cell, some in runs.items()
            }
    settings = {"streams": NUM_STREAMS, "output_tokens": NUM_OUTPUT_TOKENS}
    save("busy_kernel", {"settings": settings, "runs": results})


if __name__ == "__main__":
    main()
