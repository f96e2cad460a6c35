"""Replay steps of single tokens: one graph per bucket in place of hundreds of kernel launches.

Request path 5/8, beside runtime.model_runner. A small model on a GPU spends more time on launching
kernels than on running them; a CUDA graph launches all of a step's at once, with the addresses that
they were captured with. So the step is laid out in `toolkit.runtime.decode_buffers`, and the graphs
share one memory pool: two of them never run at the same time.

Needs ops that do not wait for the device: those in Triton, not the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from toolkit.engine.plan import StepPlan
from toolkit.models import FlatBatch
from toolkit.runtime.decode_buffers import DecodeBuffers
from toolkit.runtime.rows import SingleTokens

__all__ = ["Capture", "CudaCapture", "DecodeGraphs", "EagerReplay", "StepGraph"]


class StepGraph(Protocol):
    """A step that was captured; it reads and writes the same memory each time."""

    def replay(self) -> Tensor:
        """Launch it; return what it computes, which the next replay overwrites."""
        ...


logger = logging.getLogger(__name__)

# Turns a call, which has been made before, into a graph of it.
Capture: TypeAlias = Callable[[Callable[[], Tensor]], StepGraph]


class EagerReplay:
    """A graph that was not captured: it calls again, which any device can.

    For a look at the path around the graphs without a GPU, and at what they save with one.
    """

    def __init__(self, call: Callable[[], Tensor]) -> None:
        self._call = call

    def replay(self) -> Tensor:
        """Call; return what that returns."""
        return self._call()


class CudaCapture:
    """Captures CUDA graphs that share a memory pool.

    Args:
        device: Where.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], Tensor]) -> StepGraph:
        """Capture a call: run it once more, aside, since what is compiled or tuned comes first."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: a server's, or another engine's.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = call()
        return _CudaGraph(graph, output)


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph = graph
        self._output = output

    def replay(self) -> Tensor:
        """Launch the graph."""
        self._graph.replay()
        return self._output


class DecodeGraphs:
    """The graphs of a model's steps of single tokens, by bucket; each is captured when first used.

    Args:
        forward: Computes the logits [rows, vocab] of a batch of single tokens.
        is_untouched: Whether the model is still the one that is captured: a graph knows nothing of
            a hook, or of another module in a layer's place.
        buffers: Where the batches are laid out.
        capture: ``CudaCapture(device)``, or ``EagerReplay``.
    """

    def __init__(
        self,
        forward: Callable[[FlatBatch], Tensor],
        is_untouched: Callable[[], bool],
        *,
        buffers: DecodeBuffers,
        capture: Capture,
    ) -> None:
        self._forward = forward
        self._is_untouched = is_untouched
        self._buffers = buffers
        self._capture = capture
        self._graphs: dict[int, StepGraph] = {}

    @property
    def captured(self) -> tuple[int, ...]:
        """The sizes of the buckets that have been captured."""
        return tuple(sorted(self._graphs))

    def fit(self, plan: StepPlan) -> bool:
        """Whether there is a graph for a plan: each chunk is a token that the next follows."""
        return (
            plan.num_tokens == len(plan.chunks)
            and all(chunk.samples for chunk in plan.chunks)
            and self._is_untouched()
        )

    def logits(self, tokens: SingleTokens, token_ids: Tensor | None = None) -> Tensor:
        """Compute a step; return its logits [requests, vocab], good until the next step.

        Args:
            tokens: The step.
            token_ids: [requests] int64 on the device, where the host does not know them.
        """
        count = len(tokens.positions)
        size = self._buffers.size_for(count)
        self._buffers.fill(size, tokens, token_ids)
        return self._graph(size).replay()[:count]

    @torch.inference_mode()
    def capture_all(self, *, progress: bool = True) -> None:
        """Capture every bucket now, the largest first, so that no request waits for it later.

        The largest takes the memory that the others then share. Only between two steps.
        """
        sizes = sorted(self._buffers.sizes, reverse=True)
        for size in tqdm(sizes, desc="capturing", unit="graph", disable=not progress):
            self._buffers.fill(size)
            self._graph(size)

    def clear(self) -> None:
        """Give the graphs and their memory back."""
        self._graphs.clear()

    def _graph(self, size: int) -> StepGraph:
        graph = self._graphs.get(size)
        if graph is None:
            batch = self._buffers.batch(size)
            self._graphs[size] = graph = self._captured(lambda: self._forward(batch))
        return graph

    def _captured(self, call: Callable[[], Tensor]) -> StepGraph:
        """Capture a call, or let it be called again each time where that cannot be captured."""
        try:
            return self._capture(call)
        except RuntimeError as error:
            call()  # what fails without being captured too fails here, as itself
            self._capture = EagerReplay
            logger.warning("steps are launched kernel by kernel, since no graph of them: %s", error)
            return EagerReplay(call)
