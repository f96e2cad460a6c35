"""Keep activations of requests while they are served: ``with llm.hooks.capture(points) as cap``."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from toolkit.errors import InvalidParameter, ToolkitError
from toolkit.request import Request, RequestOutput
from toolkit.runtime.hooks.captured import CapturedRequest, Rows, Span
from toolkit.runtime.hooks.keeping import Keeping
from toolkit.runtime.hooks.lens import Lens, read_lens
from toolkit.runtime.hooks.names import Point
from toolkit.runtime.hooks.positions import Positions

__all__ = ["Capture", "Sink"]

logger = logging.getLogger(__name__)

# sink(request_id, point, positions, tensor [num_positions, ...])
Sink: TypeAlias = Callable[[str, str, Sequence[int], Tensor], object]
_GIB = 1 << 30


class Keeper(Protocol):
    """Whoever tells requests which captures are open."""

    def open(self, capture: Capture) -> None:
        """Let requests that are added from now on be captured."""
        ...

    def close(self, capture: Capture) -> None:
        """End that."""
        ...

    def read_out(self, residual: Tensor) -> Tensor:
        """Score the vocabulary for residual sums [rows, hidden]."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return a token as text."""
        ...


class Capture(Mapping[str, CapturedRequest]):
    """The activations of the requests that were added while it was open, by request id.

    Made by ``llm.hooks.capture``, which says what it takes. A request, or its output, serves as key
    too. Of n samples each has the prompt's activations, which were computed once, and its own.
    """

    def __init__(
        self,
        keeper: Keeper,
        points: Sequence[Point],
        *,
        positions: Positions,
        keeping: Keeping,
        sink: Sink | None,
        requests: Callable[[Request], bool] | None,
        num_layers: int,
    ) -> None:
        self.points = tuple(map(str, points))
        self.places = tuple(points)
        self.positions = positions
        self.dtype = keeping.dtype
        self.wants = requests
        self.is_open = False
        self.is_full = False
        self.num_bytes = 0
        self.error: BaseException | None = None  # that ended it
        self._keeper = keeper
        self._device = keeping.device
        self._sink = sink
        self._max_bytes = keeping.max_gb * _GIB
        self._num_layers = num_layers
        self._requests: dict[str, Request] = {}
        self._parts: dict[str, list[tuple[Rows, Span]]] = defaultdict(list)
        self._cut: set[str] = set()

    # ---- what a user does

    def __enter__(self) -> Capture:
        self.is_open = True
        self._keeper.open(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if self.error is not None and kind is None:
            raise ToolkitError(
                f"the capture ended early, and then nothing more was captured: {self.error!r}"
            ) from self.error

    def close(self) -> None:
        """Capture nothing more; what there is stays."""
        self.is_open = False
        self._keeper.close(self)

    def __getitem__(self, request: str | int | Request | RequestOutput) -> CapturedRequest:
        """Return what was captured of a request so far; a number counts the requests from 0.

        Raises:
            KeyError: nothing of it was.
            ToolkitError: a part of it was dropped for lack of room.
        """
        request_id = self._nth(request) if isinstance(request, int) else _id_of(request)
        parts = self._parts_of(request_id)
        if request_id in self._cut:
            raise ToolkitError(
                f"some activations of {request_id} found no room in {self._max_bytes / _GIB:g} GiB:"
                " raise max_gb, ask for fewer points, or stream to a sink"
            )
        if not parts:
            raise KeyError(f"nothing was captured of {request_id!r}; there are {list(self)}")
        return CapturedRequest(request_id, parts, self._num_layers)

    def __iter__(self) -> Iterator[str]:
        for request_id, request in tuple(self._requests.items()):
            if any(self._parts.get(sample.id) for sample in request.samples):
                yield request_id

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, request: object) -> bool:
        return _id_of(request) in tuple(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __dir__(self) -> list[str]:
        """List what is of use in a notebook; the rest is for the engine's thread."""
        counts = ["dtype", "error", "is_full", "is_open", "num_bytes", "points", "positions"]
        return [*counts, "close", "items", "keys", "lens", "values"]

    def lens(self, request: str | Request | RequestOutput, top: int = 5) -> Lens:
        """Read every captured resid_post (and embed) as if it were the last layer's.

        Raises:
            ToolkitError: no residual sum was captured.
            InvalidParameter: ``top`` is no number of tokens.
        """
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise InvalidParameter(
                f"top is a number of tokens, from 1 on, not {top!r:.80}", param="top"
            )
        captured = self[request]
        return read_lens(self._requests[captured.request_id], captured, self._keeper, top)

    def __repr__(self) -> str:
        points = ", ".join(self.points[:3]) + (", ..." if len(self.points) > 3 else "")
        state = "open" if self.is_open else "closed"
        full = ", full" if self.is_full else ""
        return (
            f"Capture({len(self.points)} points: {points}; {len(self)} requests, "
            f"{self.num_bytes / 2**20:.1f} MiB, {state}{full})"
        )

    # ---- what the engine's thread does

    def begin(self, request: Request) -> None:
        """Expect a request's activations, from the beginning."""
        self._requests[request.id] = request
        self._parts.pop(request.id, None)

    def fail(self, error: BaseException) -> None:
        """Stop because a function of the user's raised, or rows could not be kept.

        No request shall suffer for it.
        """
        if self.error is not None:
            return
        logger.warning("a capture ends early:", exc_info=error)
        self.error = error
        self.close()

    def add(self, rows: Rows) -> None:
        """Take what a step gave."""
        if self.error is not None:
            return
        if self._device is not None:
            rows.move(self._device)
        if self._sink is not None:
            self._send(rows)
            return
        if self.num_bytes + rows.num_bytes > self._max_bytes:
            if not self.is_full:
                logger.warning("%r has no more room: what follows is dropped", self)
            self.is_full = True
            self._cut.update(span.request_id for span in rows.spans)
            return
        self.num_bytes += rows.num_bytes
        for span in rows.spans:
            self._parts[span.request_id].append((rows, span))

    def _send(self, rows: Rows) -> None:
        """Hand rows over, until the sink raises."""
        for span in rows.spans:
            for point in rows.values:
                if self.error is not None:
                    return
                with torch.inference_mode(False):
                    own = rows.part(point, span).clone()
                try:
                    assert self._sink is not None
                    self._sink(span.request_id, point, span.positions, own)
                except BaseException as error:
                    self.fail(error)

    def _nth(self, number: int) -> str:
        names = list(self)
        try:
            return names[number]
        except IndexError:
            raise KeyError(
                f"there is no request number {number}: {len(names)} were captured, {names}"
            ) from None

    def _parts_of(self, request_id: str) -> list[tuple[Rows, Span]]:
        """Return a request's rows: the prompt's, whichever sample computed them, then its own."""
        request = self._requests.get(request_id)
        if request is None:
            return []
        parts = []
        for sample in request.samples:
            for rows, span in tuple(self._parts.get(sample.id, ())):
                if sample is not request:
                    span = span._replace(positions=span.positions[: span.num_in_prompt])
                if len(span.positions):
                    parts.append((rows, span))
        return sorted(parts, key=lambda part: part[1].positions[0])


def _id_of(request: object) -> str:
    if isinstance(request, Request):
        return request.id
    found = getattr(request, "request_id", request)
    return found if isinstance(found, str) else repr(found)
