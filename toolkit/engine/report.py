"""StepReport: what one step did and why, to print in a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.engine.beam_groups import BeamMove
from toolkit.engine.plan import SampledToken, ScheduledChunk, StepPlan, StepResult
from toolkit.engine.report_html import report_html

__all__ = ["MOST_NAMED", "BlockCounts", "RequestUpdate", "StepReport"]

MOST_NAMED = 10  # of a line


class RequestUpdate(NamedTuple):
    """What a step added to one request."""

    request_id: str
    first_index: int  # output index of the first new token
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str | None
    tokens: tuple[SampledToken, ...] = ()  # as ``token_ids``, with what else is known of each


class BlockCounts(NamedTuple):
    """Blocks of the pool by state."""

    used: int
    cached: int
    empty: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step, after the fact; times are seconds on the engine's clock.

    The step ends with the update; then its tokens become text and go out, until ``sent_s``.
    """

    plan: StepPlan
    result: StepResult
    updates: tuple[RequestUpdate, ...]
    # (request id, cause) of those that were refused; who stands behind them was not asked
    waiting: tuple[tuple[str, str], ...]
    num_running: int
    num_waiting: int
    num_cached_tokens: int
    num_recomputed_tokens: int
    num_evicted: int
    blocks_before: BlockCounts
    blocks_after: BlockCounts
    policy: str
    start_s: float
    end_s: float
    sent_s: float
    schedule_s: float
    update_s: float
    # (request id, cause) of those that run, have no token yet and got no chunk
    stalled: tuple[tuple[str, str], ...] = ()
    preempted: tuple[tuple[str, str], ...] = ()  # who lost its blocks, and for whom
    beam_moves: tuple[BeamMove, ...] = ()  # how the beams go on whose group was complete
    in_line: tuple[str, ...] = ()  # the first that wait after it; only step() names them

    @property
    def step(self) -> int:
        """The step's number, from 0."""
        return self.plan.step

    @property
    def duration_s(self) -> float:
        """Wall or virtual seconds from schedule to update."""
        return self.end_s - self.start_s

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (request, computed, why, got) for each chunk, then for beams that had none."""
        updates = {update.request_id: update for update in self.updates}
        vectors = self.result.embeddings
        moves: dict[str, list[BeamMove]] = {}
        for move in self.beam_moves:
            moves.setdefault(move.parent_id, []).append(move)
        rows = [
            (
                chunk.request_id,
                f"tokens {chunk.start}-{chunk.end - 1}",
                _why(chunk, ends=chunk.samples or chunk.request_id in vectors),
                _got(
                    updates.pop(chunk.request_id, None),
                    moves.pop(chunk.request_id, ()),
                    vectors.get(chunk.request_id),
                ),
            )
            for chunk in self.plan.chunks
        ]
        return rows + [
            (
                name,
                "nothing",
                "waited for its siblings",
                _got(updates.get(name), moves.get(name, ())),
            )
            for name in {**updates, **moves}
        ]

    def losses(self) -> list[tuple[str, str]]:
        """Return (request, what happened) for each that lost its blocks."""
        for_whom = dict(self.preempted)
        return [
            (name, f"preempted for {for_whom[name]}" if name in for_whom else "preempted")
            for name in self.plan.preempted_ids
        ]

    def line(self) -> list[tuple[str, str]]:
        """Return (request, cause) of those that wait: the refused, then those behind them."""
        refused = {name for name, _ in self.waiting}
        behind = [name for name in self.in_line if name not in refused]
        named = [*self.waiting, *((name, "behind them") for name in behind)]
        return named[: max(MOST_NAMED, len(self.waiting))]

    @property
    def num_unnamed(self) -> int:
        """How many wait beside those of ``line()``."""
        return max(0, self.num_waiting - len(self.line()))

    def summary(self) -> str:
        """Return the step in one line."""
        before, after = self.blocks_before, self.blocks_after
        return (
            f"step {self.step}: {len(self.plan.chunks)} requests, {self.plan.num_tokens} of "
            f"{self.plan.token_budget} tokens, {1e3 * self.duration_s:.1f} ms; "
            f"blocks used {before.used} -> {after.used}, cached {before.cached} -> "
            f"{after.cached}, empty {before.empty} -> {after.empty}; waiting {self.num_waiting}"
            + (f", limited by {self.plan.limited_by}" if self.plan.limited_by != "none" else "")
        )

    def __repr__(self) -> str:
        lines = [self.summary()]
        lines += [
            f"  {name:<12} {what:<18} {why:<28} {got}" for name, what, why, got in self.rows()
        ]
        lines += [f"  {name:<12} {what}" for name, what in self.losses()]
        lines += [f"  {name:<12} waits: {cause}" for name, cause in self.line()]
        if self.num_unnamed:
            lines.append(f"  and {self.num_unnamed} more wait")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return report_html(self)


def _why(chunk: ScheduledChunk, *, ends: bool) -> str:
    if not ends:
        return "a part of its known tokens"
    if chunk.is_first or chunk.num_tokens > 1 or not chunk.samples:
        return "up to its last known token"
    return "its newest token"


def _got(
    update: RequestUpdate | None, moves: Sequence[BeamMove], vector: bytes | None = None
) -> str:
    if moves:
        return ", ".join(f"token {move.token_id} -> {move.request_id}" for move in moves)
    if vector is not None:
        return f"embedding of {len(vector) // 4} numbers"
    if update is None or not update.token_ids:
        return "-" if update is None or update.finish_reason is None else update.finish_reason
    tokens = ", ".join(map(str, update.token_ids))
    end = f" ({update.finish_reason})" if update.finish_reason else ""
    return f"token {tokens} {update.text!r}{end}"
