"""A request whose hooks are made ready: who reads which of its positions, and what changes them.

Written by the engine's thread; the scheduler asks ``first_wanted``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import ReferenceType

from toolkit.request import Request
from toolkit.runtime.hooks.capture import Capture
from toolkit.runtime.hooks.kinds import Bound
from toolkit.runtime.hooks.positions import Where

__all__ = ["HookedRequest"]


@dataclass(slots=True)
class _Samples:
    """What the samples of one prompt share."""

    num_read: int = 0  # of the prompt's first tokens
    # A hook that raised left the prompt's cached keys half changed, for all of them.
    error: BaseException | None = None


@dataclass(slots=True)
class HookedRequest:
    """A request with its hooks made ready, and which captures read which of its positions."""

    request: Request
    changes: tuple[Bound, ...]
    reads: tuple[tuple[ReferenceType[Capture], Where], ...]
    shared: _Samples = field(default_factory=_Samples)
    num_read: int = 0  # of its first tokens: captured, or not wanted

    def sibling(self, request: Request) -> HookedRequest:
        """Return the same for another sample."""
        return HookedRequest(request, self.changes, self.reads, self.shared)

    def restart(self) -> None:
        """Expect the request from its first token again."""
        self.num_read = 0
        self.shared.num_read = 0
        self.shared.error = None

    @property
    def captures(self) -> list[Capture]:
        """The open captures that read it."""
        return [capture for capture, _ in self._open_reads()]

    def first_wanted(self, position: int) -> int | None:
        """Return the first position from this one on that a capture wants to see computed."""
        found = [rule.first_from(position) for _, rule in self.reads]
        return min((first for first in found if first is not None), default=None)

    def take_unread(self, start: int, end: int) -> list[tuple[Capture, Sequence[int]]]:
        """Return what captures want of a chunk, each position once: not when it is recomputed."""
        num_prompt = self.request.num_prompt_tokens
        start = max(start, self.num_read, self.shared.num_read)
        self.num_read = max(self.num_read, end)
        self.shared.num_read = max(self.shared.num_read, min(end, num_prompt))
        found = []
        for capture, rule in self._open_reads():
            try:
                wanted = rule.within(start, end)
            except BaseException as error:  # a function of the position
                capture.fail(error)
                continue
            if len(wanted):
                found.append((capture, wanted))
        return found

    def _open_reads(self) -> list[tuple[Capture, Where]]:
        pairs = [(capture(), rule) for capture, rule in self.reads]
        return [(read, rule) for read, rule in pairs if read is not None and read.is_open]
