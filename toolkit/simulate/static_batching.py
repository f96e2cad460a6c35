"""Batches that begin and end together: what serving was before Orca (Yu et al., OSDI 2022)."""

from __future__ import annotations

from toolkit.engine.policy import NOBODY, Nobody, SchedulerView
from toolkit.errors import InvalidConfig
from toolkit.request import Request

__all__ = ["StaticBatching"]


class StaticBatching:
    """Request-level batching: nobody starts before everybody of the batch before has ended.

    A batch is whoever waits when it forms, at most ``batch_size`` of them in the order of arrival.
    When a request ends early its place stays empty until the longest one ends; its arithmetic is
    spared, though, where a system that pads would go on with it. So if a step takes equally long
    whatever is in it, a batch of n takes as long as its longest output, and continuous batching has
    E[longest of n] / E[output length] times the throughput: for exponential lengths
    1 + 1/2 + ... + 1/n.

    A plain policy: any engine takes it. Its ``max_num_seqs`` and its memory must have room for the
    batch; a member that finds none starts as soon as there is some.

    >>> from toolkit import LLM
    >>> llm = LLM(policy=StaticBatching(8))  # doctest: +SKIP
    """

    static = True

    def __init__(self, batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidConfig(f"batch_size must be a positive integer, not {batch_size!r}")
        self.batch_size = batch_size
        self._members: set[str] = set()
        self._last_member = -1  # whoever of them came last, by the number of its arrival
        self._formed_s = 0.0

    def rank(self, request: Request, view: SchedulerView) -> int:
        """First come, first served."""
        return 0

    def admit(self, request: Request, view: SchedulerView) -> bool | Nobody:
        """Let in whoever waited when the batch formed, while there is room."""
        if not view.running and request.num_preemptions == 0:
            self._members, self._formed_s = {request.id}, view.now_s
            self._last_member = request.arrival_index
            return True
        if request.id in self._members:
            return True  # it was preempted, or the step that it was let in for was full
        has_room = len(self._members) < self.batch_size
        was_there = request.queued_s is not None and request.queued_s <= self._formed_s
        if has_room and was_there:
            self._members.add(request.id)
            self._last_member = max(self._last_member, request.arrival_index)
            return True
        # The line is in the order of arrival, so behind the last member nobody else is one.
        return NOBODY if request.arrival_index > self._last_member else False

    def __repr__(self) -> str:
        return f"StaticBatching({self.batch_size})"
