"""Show one step's activations: change those of some requests, copy those of others.

Request path 5/8: from runtime.model_runner, beside models.decoder, which calls ``tap``. Rows of
requests that have no hook pass through untouched, bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.engine.plan import StepPlan
from toolkit.errors import RequestFailed
from toolkit.models import FlatBatch
from toolkit.runtime.hooks.capture import Capture
from toolkit.runtime.hooks.captured import Rows, Span
from toolkit.runtime.hooks.hooked import HookedRequest
from toolkit.runtime.hooks.kinds import Bound, HookAt
from toolkit.runtime.hooks.names import Point
from toolkit.runtime.hooks.probs import HookedChunk, ProbsPlan

__all__ = ["HookedStep", "begin_step"]


class _Change(NamedTuple):
    """One hook at work on some rows of what a point shows."""

    hooked: HookedRequest
    bound: Bound
    rows: Tensor  # [n] int64
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    width: int | None  # of attn_probs: the request's own context


def begin_step(
    plan: StepPlan, batch: FlatBatch, hooked: Mapping[str, HookedRequest]
) -> HookedStep | None:
    """Return what a plan shows of the hooked requests in it; None if that is nothing."""
    parts = []
    errors: dict[str, BaseException] = {}
    row = sampled = 0
    for index, chunk in enumerate(plan.chunks):
        one = hooked.get(chunk.request_id)
        if one is not None:
            try:
                if one.shared.error is not None:
                    raise one.shared.error
                changes = [(b, b.where.within(chunk.start, chunk.end)) for b in one.changes]
                reads = one.take_unread(chunk.start, chunk.end)
            except BaseException as error:  # a function of the position, or a sibling's hook
                errors[chunk.request_id] = error
            else:
                changes = [(bound, wanted) for bound, wanted in changes if len(wanted)]
                if changes or reads:
                    parts.append(HookedChunk(one, chunk, index, row, sampled, changes, reads))
        row += chunk.num_tokens
        sampled += chunk.samples
    return HookedStep(plan.step, batch, parts, errors) if parts or errors else None


class HookedStep:
    """One step's hooks: gives the decoder its tap, and the captures what they asked for.

    ``errors`` holds, by request, what a hook raised or did wrong; that request's later hooks are
    left out, and its step counts for nothing.
    """

    def __init__(
        self,
        step: int,
        batch: FlatBatch,
        parts: list[HookedChunk],
        errors: dict[str, BaseException],
    ) -> None:
        self.errors = errors
        self._step = step
        self._device = batch.token_ids.device
        self._num_rows = batch.num_tokens
        self._parts = parts
        self._changes: defaultdict[Point, list[_Change]] = defaultdict(list)
        self._takers: defaultdict[Point, list[tuple[Capture, Rows]]] = defaultdict(list)
        self._kept: list[tuple[Capture, Rows]] = []
        self._prompt_logits: list[tuple[Capture, Rows]] = []
        probs = ProbsPlan(batch, parts)
        self.attn_probs = frozenset(probs.layers)
        self.probs_rows = probs.rows() if probs.layers else None
        for part in parts:
            for bound, wanted in part.changes:
                self._plan_change(part, bound, wanted, probs)
        captures = dict.fromkeys(capture for part in parts for capture, _ in part.reads)
        for capture in captures:
            self._plan_capture(capture, probs)

    # ---- what the runner calls

    def tap(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        """Return what a point's activations become; the decoder's ``Tap``."""
        point = Point(name, layer)
        if point in self._changes:
            x = self._changed(self._changes[point], point, x)
        for capture, rows in self._takers.get(point, ()):
            with _ending(capture):
                rows.take(str(point), x)
        return x

    def score_prompts(self, hidden: Tensor, logits: Callable[[Tensor], Tensor]) -> None:
        """Compute the logits that captures want where nothing is sampled.

        ``hidden`` [num_tokens, width] are all states of the step.
        """
        for capture, rows in self._prompt_logits:
            with _ending(capture):
                parts = rows.of(hidden).split(_MAX_SCORED_ROWS)
                rows.keep("logits", torch.cat([logits(part) for part in parts]))

    def end(self) -> None:
        """Hand what was taken to its captures."""
        for capture, rows in self._kept:
            if rows.values:
                with _ending(capture):
                    capture.add(rows)

    # ---- changes

    def _plan_change(
        self, part: HookedChunk, bound: Bound, wanted: Sequence[int], probs: ProbsPlan
    ) -> None:
        chunk = part.chunk
        flat = self._index(part.first_row - chunk.start, wanted)
        ids = tuple(chunk.token_ids[position - chunk.start] for position in wanted)
        change = _Change(part.hooked, bound, flat, tuple(wanted), ids, None)
        for point in bound.points:
            if point.name == "attn_probs":
                shown = self._index(probs.offset(part), wanted)
                width = probs.hulls[part.index].stop
                self._changes[point].append(change._replace(rows=shown, width=width))
            elif point.name != "logits":
                self._changes[point].append(change)
            elif chunk.samples and wanted[-1] == chunk.end - 1:
                self._changes[point].append(
                    change._replace(
                        rows=self._index(0, [part.sampled_row]),
                        positions=change.positions[-1:],
                        token_ids=ids[-1:],
                    )
                )

    def _changed(self, changes: list[_Change], point: Point, x: Tensor) -> Tensor:
        new = x
        for change in changes:
            request = change.hooked.request
            if request.id in self.errors:
                continue
            rows = new[change.rows]  # a copy
            if change.width is not None:
                rows = rows[..., : change.width].clone()
            at = HookAt(
                request_id=request.id,
                point=str(point),
                layer=point.layer,
                step=self._step,
                positions=change.positions,
                token_ids=change.token_ids,
                is_output=tuple(p >= request.num_prompt_tokens for p in change.positions),
                tags=request.tags,
            )
            try:
                answer = change.bound.apply(rows, at)
            except BaseException as error:
                self.errors[request.id] = told = _told(error, change, at)
                if not at.is_output[0]:
                    change.hooked.shared.error = told
                continue
            if answer is not None:
                new = x.clone() if new is x else new
                new[change.rows, ..., : answer.shape[-1]] = answer
        return new

    # ---- captures

    def _plan_capture(self, capture: Capture, probs: ProbsPlan) -> None:
        """Say which rows a capture takes: of the flat batch, of attn_probs and of the logits."""
        reads = [(part, w) for part in self._parts for c, w in part.reads if c is capture]
        probs_points = [p for p in capture.places if p.name == "attn_probs"]
        usual = [p for p in capture.places if p.name not in ("attn_probs", "logits")]
        if usual:
            draft = _Draft()
            for part, wanted in reads:
                draft.add(part, wanted, part.first_row - part.chunk.start)
            is_whole = draft.rows == list(range(self._num_rows))
            self._take(capture, draft, usual, is_whole=is_whole)
        if probs_points:
            draft = _Draft()
            for part, wanted in reads:
                draft.add(part, wanted, probs.offset(part))
            self._take(capture, draft, probs_points)
        if len(usual) + len(probs_points) < len(capture.places):
            self._plan_logits(capture, reads)

    def _plan_logits(
        self, capture: Capture, reads: list[tuple[HookedChunk, Sequence[int]]]
    ) -> None:
        """Take the logits that are sampled from where they are shown, and have the others made."""
        early, sampled = _Draft(), _Draft()
        for part, wanted in reads:
            chunk = part.chunk
            samples = chunk.samples and wanted[-1] == chunk.end - 1
            early.add(part, wanted[: len(wanted) - samples], part.first_row - chunk.start)
            if samples:
                sampled.add(part, wanted[-1:], part.sampled_row - wanted[-1])
        if sampled.rows:
            self._take(capture, sampled, [Point("logits", None)])
        if early.rows:
            self._prompt_logits.append((capture, self._take(capture, early, [])))

    def _take(
        self, capture: Capture, draft: _Draft, points: list[Point], *, is_whole: bool = False
    ) -> Rows:
        index = None if is_whole else self._index(0, draft.rows)
        rows = Rows(index, draft.spans, capture.dtype)
        self._kept.append((capture, rows))
        for point in points:
            self._takers[point].append((capture, rows))
        return rows

    def _index(self, offset: int, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([offset + number for number in numbers], device=self._device)


# Logits of a prompt are made a piece at a time: all at once they could take gigabytes.
_MAX_SCORED_ROWS = 128


@dataclass(slots=True)
class _Draft:
    """Rows that a capture is to take, and whose they are."""

    rows: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def add(self, part: HookedChunk, positions: Sequence[int], offset: int) -> None:
        """Take a request's positions, which lie in rows ``position + offset``."""
        request = part.hooked.request
        if len(positions):
            num_in_prompt = sum(p < request.num_prompt_tokens for p in positions)
            self.spans.append(Span(request.id, len(self.rows), tuple(positions), num_in_prompt))
            self.rows += [position + offset for position in positions]


@contextmanager
def _ending(capture: Capture) -> Iterator[None]:
    """Let what raises inside end the capture, not the step: others compute in it."""
    try:
        yield
    except BaseException as error:  # no memory, or rows that cannot become the wanted dtype
        capture.fail(error)


def _told(error: BaseException, change: _Change, at: HookAt) -> BaseException:
    """Return an error that names the hook and the point; ours do already."""
    if isinstance(error, RequestFailed):
        return error
    told = RequestFailed(f"{change.bound.label} at {at.point} raised {error!r}")
    told.__cause__ = error
    return told
