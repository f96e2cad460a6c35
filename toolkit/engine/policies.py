"""Scheduling policies: who runs first, told by a function or a small class.

A policy only ranks and advises; the scheduler keeps the budget, the blocks and the promise that
every request ends. The contract:

    def my_policy(request, view) -> sortable      # smaller runs first, ties by arrival
    class MyPolicy:                               # or any of these methods
        static = False                            # True: ranked once, when it joins the queue
        def rank(self, request, view): ...
        def admit(self, request, view) -> bool: ...
        def chunk(self, request, budget, view) -> int: ...
        def victim(self, candidates, view) -> Request: ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InvalidConfig
from toolkit.request import Request

__all__ = ["POLICIES", "Fcfs", "Policy", "Priority", "SchedulerView", "resolve_policy"]


@dataclass(frozen=True, slots=True)
class SchedulerView:
    """What a policy may look at; made once per step."""

    now_s: float
    token_budget: int
    running: Sequence[Request]
    waiting: Collection[Request]
    num_free_blocks: int
    cached_tokens: Callable[[Request], int]
    last_step: int


class Fcfs:
    """First come, first served."""

    static = True

    def rank(self, request: Request, view: SchedulerView) -> int:
        """All alike: ties go by arrival."""
        return 0


class Priority:
    """The smallest ``request.priority`` first, then by arrival."""

    static = True

    def rank(self, request: Request, view: SchedulerView) -> int:
        """Smaller numbers are more urgent, as in vLLM."""
        return request.priority


POLICIES: dict[str, Callable[[], Any]] = {"fcfs": Fcfs, "priority": Priority}


@dataclass(frozen=True, slots=True)
class Policy:
    """A user's policy with its missing methods filled in (None: the scheduler's own way)."""

    name: str
    static: bool
    rank: Callable[[Request, SchedulerView], Any]
    admit: Callable[[Request, SchedulerView], bool] | None
    chunk: Callable[[Request, int, SchedulerView], int] | None
    victim: Callable[[Sequence[Request], SchedulerView], Request] | None


def resolve_policy(policy: Any) -> Policy:
    """Turn a name, a function, a class or an object into a ``Policy``.

    Raises:
        InvalidConfig: an unknown name, or an object with none of the methods.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise InvalidConfig(
                f"policy={policy!r} is not one of {', '.join(POLICIES)}; "
                "a function (request, view) -> sortable is a policy too"
            )
        return _from_object(POLICIES[policy](), policy)
    if isinstance(policy, type):
        return _from_object(policy(), policy.__name__)
    if any(hasattr(policy, method) for method in ("rank", "admit", "chunk", "victim")):
        return _from_object(policy, type(policy).__name__)
    if callable(policy):
        name = getattr(policy, "__name__", repr(policy))
        return Policy(name=name, static=False, rank=policy, admit=None, chunk=None, victim=None)
    raise InvalidConfig(
        f"policy={policy!r} is neither a name, a function (request, view) -> sortable, nor an "
        "object with rank, admit, chunk or victim"
    )


def _from_object(policy: Any, name: str) -> Policy:
    has_rank = hasattr(policy, "rank")
    return Policy(
        name=name,
        # Without a rank of its own it is first come, first served, which never changes.
        static=bool(getattr(policy, "static", False)) or not has_rank,
        rank=policy.rank if has_rank else Fcfs().rank,
        admit=getattr(policy, "admit", None),
        chunk=getattr(policy, "chunk", None),
        victim=getattr(policy, "victim", None),
    )
