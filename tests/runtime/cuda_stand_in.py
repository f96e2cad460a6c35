"""torch.cuda as far as capturing and copying call it, for a machine that has none.

It computes nothing: it notes who is asked for what, so that a test can tell which device, stream
and memory pool each call was about.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch


@dataclass
class Stream:
    """A stream of a device."""

    device: Any

    def wait_stream(self, _: Stream) -> None:
        """Do nothing: there is no order to keep."""


@dataclass
class CudaStandIn:
    """What was asked for."""

    num_pools: int = 0
    current: list[Any] = field(default_factory=list)  # devices that were made current
    recorded_on: list[Any] = field(default_factory=list)  # streams of events
    pools: list[int] = field(default_factory=list)  # of captures
    fails: bool = False  # whether a capture ends in want of memory

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in torch.cuda's place, until the test ends."""
        stand_in = self

        class Graph:
            def replay(self) -> None:
                """Do nothing."""

        class Event:
            def record(self, stream: Stream) -> None:
                stand_in.recorded_on.append(stream.device)

            def synchronize(self) -> None:
                """Do nothing."""

        for name, value in {
            "graph_pool_handle": self._pool,
            "Stream": Stream,
            "current_stream": Stream,
            "stream": self._nothing,
            "CUDAGraph": Graph,
            "Event": Event,
            "graph": self._graph,
            "device": self._device,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def _pool(self) -> int:
        self.num_pools += 1
        return self.num_pools

    @contextmanager
    def _nothing(self, _: Any) -> Iterator[None]:
        yield

    @contextmanager
    def _device(self, device: Any) -> Iterator[None]:
        self.current.append(device)
        yield

    @contextmanager
    def _graph(self, _: Any, *, pool: int, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        self.pools.append(pool)
        yield
        if self.fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
