"""Launch chunks without waiting for their tokens, so that a device finds the next step ready.

Request path 5/8, beside runtime.model_runner. The last token that each row drew stays on the device
as well, where the chunks that follow it are launched from: see engine.foresight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.engine.plan import UNKNOWN_TOKEN, SampledToken, ScheduledChunk, StepPlan
from toolkit.kernels.transfers import to_device
from toolkit.models import FlatBatch
from toolkit.request import Request, SamplingParams
from toolkit.runtime.cuda_graphs import DecodeGraphs
from toolkit.runtime.rows import RowTable, sampled_rows
from toolkit.sampling import Drawn, Sampler

__all__ = ["Flight", "Launcher"]


@dataclass(frozen=True, slots=True)
class _Passenger:
    chunk: ScheduledChunk
    request: Request
    params: SamplingParams  # of the moment; somebody may change the request's later
    place: int | None  # of its token among those drawn


class Flight:
    """Chunks of one step that were launched, and the tokens that are drawn from them."""

    def __init__(
        self,
        plan: StepPlan,
        requests: Mapping[str, Request],
        drawn: Drawn | None,
        *,
        missed_graph: bool,
    ) -> None:
        self.missed_graph = missed_graph
        self._step = plan.step
        self._drawn = drawn
        self._passengers: dict[str, _Passenger] = {}
        num_drawn = 0
        for chunk in plan.chunks:
            request = requests[chunk.request_id]
            place = num_drawn if chunk.samples else None
            num_drawn += chunk.samples
            passenger = _Passenger(chunk, request, request.params, place)
            self._passengers[chunk.request_id] = passenger

    def covered(self, plan: StepPlan, requests: Mapping[str, Request]) -> set[str]:
        """Return the requests of whose chunk in a plan this computed exactly the same.

        None in the plan of another step: what was begun for one that broke off is nobody's.
        """
        if plan.step != self._step:
            return set()
        copied = {copy.request_id for copy in plan.copies}
        return {
            chunk.request_id
            for chunk in plan.chunks
            if chunk.request_id not in copied and self._covers(chunk, requests[chunk.request_id])
        }

    def _covers(self, chunk: ScheduledChunk, request: Request) -> bool:
        own = self._passengers.get(chunk.request_id)
        return (
            own is not None
            and own.request is request
            and own.params is request.params
            and not chunk.is_first  # else its blocks may be others
            and (own.chunk.start, own.chunk.end) == (chunk.start, chunk.end)
            and own.chunk.samples == chunk.samples
        )

    def land(
        self, wanted: Collection[str]
    ) -> tuple[dict[str, tuple[SampledToken, ...]], dict[str, BaseException]]:
        """Wait for the tokens; return those of some requests, or what went wrong with them."""
        tokens: dict[str, tuple[SampledToken, ...]] = {}
        errors: dict[str, BaseException] = {}
        if self._drawn is None:
            return tokens, errors
        token_ids, failed = self._drawn.finish()
        for name in wanted:
            place = self._passengers[name].place
            if place is None:
                continue
            if place in failed:
                errors[name] = failed[place]
            else:
                tokens[name] = (SampledToken(token_ids[place]),)
        return tokens, errors


class Launcher:
    """Queues steps that nobody needs to look into before their tokens are there.

    Args:
        forward: Computes the logits [samples, vocab] of a batch.
        rows: The block tables.
        sampler: Draws; of what is launched it is asked for the tokens alone.
        graphs: Of the steps of single tokens; None to launch every kernel by itself.
        device: Where the decoder is.
    """

    def __init__(
        self,
        forward: Callable[[FlatBatch], Tensor],
        rows: RowTable,
        sampler: Sampler,
        graphs: DecodeGraphs | None,
        device: torch.device,
    ) -> None:
        self.graphs = graphs
        self._forward = forward
        self._rows = rows
        self._sampler = sampler
        self._device = device
        # By row of the table: the newest token that was drawn for it.
        self._last_tokens = torch.zeros(rows.num_rows, dtype=torch.int64, device=device)

    def launch(self, plan: StepPlan, requests: Mapping[str, Request]) -> Flight:
        """Queue a plan's chunks behind all that was queued before; return at once.

        A token that is unknown is the newest that was drawn for its request.
        """
        uses_graph = self.graphs is not None and self.graphs.serve(plan)
        logits = self._replayed(plan) if uses_graph else self._computed(plan)
        rows = sampled_rows(plan, requests)
        drawn = None
        if rows:
            drawn = self._sampler.draw(logits, rows)
            of_rows = self._rows.rows_of([row.request.id for row in rows])
            self._last_tokens.index_copy_(0, self._index(of_rows), drawn.tokens)
        missed_graph = self.graphs is not None and not uses_graph
        return Flight(plan, requests, drawn, missed_graph=missed_graph)

    def _replayed(self, plan: StepPlan) -> Tensor:
        assert self.graphs is not None
        tokens, token_ids = self._rows.single_tokens(plan), None
        if UNKNOWN_TOKEN in tokens.token_ids:
            token_ids = to_device(torch.from_numpy(tokens.token_ids), self._device)
            self._fill_in(token_ids, plan)
        return self.graphs.logits(tokens, token_ids)

    def _computed(self, plan: StepPlan) -> Tensor:
        batch = self._rows.flat_batch(plan)
        self._fill_in(batch.token_ids, plan)
        return self._forward(batch)

    def _fill_in(self, token_ids: Tensor, plan: StepPlan) -> None:
        """Put the newest tokens drawn in place of those that the plan does not know."""
        places, names, place = [], [], 0
        for chunk in plan.chunks:
            if chunk.token_ids == (UNKNOWN_TOKEN,):
                places.append(place)
                names.append(chunk.request_id)
            place += chunk.num_tokens
        if places:
            newest = self._last_tokens[self._index(self._rows.rows_of(names))]
            token_ids.index_copy_(0, self._index(np.array(places)), newest)

    def _index(self, numbers: NDArray[np.int64]) -> Tensor:
        return to_device(torch.from_numpy(numbers), self._device)
