"""Time calls on the device that computes them, without the time that launching takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

__all__ = ["seconds_per_call"]

_NUM_REPLAYS = 20
_NUM_PASSES = 7  # on a CPU, where they take longer


def seconds_per_call(calls: Sequence[Callable[[], object]], device: torch.device) -> float:
    """Return the median time of one of the calls, which run one after the other.

    On CUDA they are replayed from a graph, so none may wait for the device; elsewhere they are
    called, after a first time that does not count.
    """
    if device.type == "cuda":
        run, repeats = _replays(calls, device), _NUM_REPLAYS
    else:
        run, repeats = _passes(calls), _NUM_PASSES
    return statistics.median(run() for _ in range(repeats)) / len(calls)


def _passes(calls: Sequence[Callable[[], object]]) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - started

    run()
    return run


def _replays(calls: Sequence[Callable[[], object]], device: torch.device) -> Callable[[], float]:
    side = torch.cuda.Stream(device)
    with torch.cuda.stream(side):  # kernels are compiled outside the capture
        calls[0]()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()

    def run() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return run
