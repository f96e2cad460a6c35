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
from toolkit.kernels.transfers import current_device
from toolkit.models import FlatBatch
from toolkit.runtime.decode_buffers import DecodeBuffers
from toolkit.runtime.rows import SingleTokens

__all__ = ["Capture", "CudaCapture", "DecodeGraphs", "EagerReplay", "StepGraph", "another"]

logger = logging.getLogger(__name__)

# Steps that ask for a graph which found no memory before it is tried again.
_STEPS_BETWEEN_TRIES = 100


class StepGraph(Protocol):
    """A step that was captured; it reads and writes the same memory each time."""

    def replay(self) -> Tensor:
        """Launch it; return what it computes, which the next replay overwrites."""
        ...


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
    """Captures CUDA graphs that share a memory pool: for one engine, whose steps never overlap.

    Args:
        device: Where; the current device of whoever captures.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def another(self) -> CudaCapture:
        """Return one with a pool of its own."""
        return CudaCapture(self._device)

    def __call__(self, call: Callable[[], Tensor]) -> StepGraph:
        """Capture a call: run it once more, aside, since what is compiled or tuned comes first."""
        try:
            return self._captured(call)
        except BaseException:
            # torch takes no pool again whose only graph is gone; graphs that are there keep theirs.
            self._pool = torch.cuda.graph_pool_handle()
            raise

    def _captured(self, call: Callable[[], Tensor]) -> _CudaGraph:
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


def another(capture: Capture | None) -> Capture | None:
    """Return what captures in the same way for an engine that runs beside the one that has this."""
    return capture.another() if isinstance(capture, CudaCapture) else capture


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
        self._is_refused = False  # for good
        self._num_awaited: dict[int, int] = {}  # steps until a bucket without memory is tried again
        self._has_warned_of_memory = False

    @property
    def captured(self) -> tuple[int, ...]:
        """The sizes of the buckets that have been captured."""
        return tuple(sorted(self._graphs))

    def serve(self, plan: StepPlan) -> bool:
        """Whether there is a graph for a plan, captured now at the latest.

        There is one where each chunk is a token that the next follows, unless somebody has changed
        the model or CUDA refuses.
        """
        return (
            plan.num_tokens == len(plan.chunks)
            and all(chunk.samples for chunk in plan.chunks)
            and self._is_untouched()
            and self._has_graph(self._buffers.size_for(len(plan.chunks)))
        )

    def logits(self, tokens: SingleTokens, token_ids: Tensor | None = None) -> Tensor:
        """Compute a step that they serve; return its logits [requests, vocab].

        They are good until the next step.

        Args:
            tokens: The step.
            token_ids: [requests] int64 on the device, where the host does not know them.
        """
        count = len(tokens.positions)
        size = self._buffers.size_for(count)
        self._buffers.fill(size, tokens, token_ids)
        return self._graphs[size].replay()[:count]

    @torch.inference_mode()
    def capture_all(self, *, progress: bool = True) -> None:
        """Capture every bucket now, the largest first, so that no request waits for it later.

        The largest takes the memory that the others then share. Only between two steps.
        """
        sizes = sorted(self._buffers.sizes, reverse=True)
        self._num_awaited.clear()
        with current_device(self._buffers.device):
            for size in tqdm(sizes, desc="capturing", unit="graph", disable=not progress):
                self._has_graph(size)

    def clear(self) -> None:
        """Give the graphs and their memory back."""
        self._graphs.clear()

    def _has_graph(self, size: int) -> bool:
        """Whether a bucket has a graph; capture it if it has none."""
        if size not in self._graphs and not self._is_refused and not self._awaits_memory(size):
            self._buffers.fill(size)  # with what disturbs nobody: capturing runs it
            batch = self._buffers.batch(size)
            graph = self._captured(size, lambda: self._forward(batch))
            if graph is not None:
                self._graphs[size] = graph
        return size in self._graphs

    def _awaits_memory(self, size: int) -> bool:
        """Whether a bucket found no memory a short while ago; count one step less to wait."""
        left = self._num_awaited.get(size, 0)
        self._num_awaited[size] = max(0, left - 1)
        return left > 0

    def _captured(self, size: int, call: Callable[[], Tensor]) -> StepGraph | None:
        """Capture a bucket's call; None where that cannot be captured, or not now."""
        try:
            return self._capture(call)
        except torch.OutOfMemoryError as error:
            self._num_awaited[size] = _STEPS_BETWEEN_TRIES
            if not self._has_warned_of_memory:
                message = "no memory for a graph of %d rows, whose steps go without for a while: %s"
                logger.warning(message, size, error)
            self._has_warned_of_memory = True
        except RuntimeError as error:
            call()  # what fails without being captured too fails here, as itself
            self._is_refused = True
            logger.warning("steps are launched kernel by kernel, since no graph of them: %s", error)
        return None
