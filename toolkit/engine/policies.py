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

import logging
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


logger = logging.getLogger(__name__)

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
        rank = _Guard(name).rank(policy)
        return Policy(name=name, static=False, rank=rank, admit=None, chunk=None, victim=None)
    raise InvalidConfig(
        f"policy={policy!r} is neither a name, a function (request, view) -> sortable, nor an "
        "object with rank, admit, chunk or victim"
    )


def _from_object(policy: Any, name: str) -> Policy:
    has_rank = hasattr(policy, "rank")
    guard = _Guard(name)
    return Policy(
        name=name,
        # Without a rank of its own it is first come, first served, which never changes.
        static=bool(getattr(policy, "static", False)) or not has_rank,
        rank=guard.rank(policy.rank) if has_rank else Fcfs().rank,
        admit=guard.method(policy, "admit", lambda request, view: True),
        chunk=guard.method(policy, "chunk", lambda request, budget, view: budget),
        victim=guard.method(policy, "victim", lambda candidates, view: candidates[-1]),
    )


class _Rank:
    """A user's rank that compares with any other: those that do not compare count as equal."""

    __slots__ = ("guard", "value")

    def __init__(self, value: Any, guard: _Guard) -> None:
        self.value = value
        self.guard = guard

    def __lt__(self, other: _Rank) -> bool:
        try:
            return bool(self.value < other.value)
        except Exception:
            self.guard.warn("rank")
            return False

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Rank)
        return not self < other and not other < self

    __hash__ = None  # type: ignore[assignment]  # equal ranks need not hash alike


class _Guard:
    """Keeps a user's policy from breaking a step: what raises is overruled, with one warning."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._warned: set[str] = set()

    def rank(self, rank: Callable[[Request, SchedulerView], Any]) -> Callable[..., Any]:
        """Make ranks that always compare; a request whose rank raises comes last."""

        def guarded(request: Request, view: SchedulerView) -> tuple[int, Any]:
            try:
                return (0, _Rank(rank(request, view), self))
            except Exception:
                self.warn("rank")
                return (1, 0)

        return guarded

    def method(
        self, policy: Any, method: str, fallback: Callable[..., Any]
    ) -> Callable[..., Any] | None:
        """Return a method that answers with the fallback where the user's raises."""
        own = getattr(policy, method, None)
        if own is None:
            return None

        def guarded(*arguments: Any) -> Any:
            try:
                return own(*arguments)
            except Exception:
                self.warn(method)
                return fallback(*arguments)

        return guarded

    def warn(self, method: str) -> None:
        """Say once per method that it is overruled; called while the error is handled."""
        if method not in self._warned:
            self._warned.add(method)
            message = "policy %s: %s raised and is overruled from now on where it does:"
            logger.warning(message, self._name, method, exc_info=True)
