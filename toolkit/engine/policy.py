"""What a scheduling policy is, and the check on everything that one answers.

A policy only ranks and advises; the scheduler keeps the budget, the blocks and the promise that
every request ends. The contract:

    def my_policy(request, view) -> sortable      # smaller runs first, ties by arrival
    class MyPolicy:                               # or any of these methods
        static = False     # True: ranked once, when it joins the line; else in each step, a long
                           # line by parts (see engine.queue.WINDOW)
        def rank(self, request, view): ...
        def admit(self, request, view) -> bool: ...
        def chunk(self, request, budget, view) -> int: ...
        def victim(self, candidates, view) -> Request: ...

``rank`` orders those that run and those that wait; those that run are served first. ``admit`` says
whether a request may start now; it may answer ``NOBODY`` in place of False where whoever stands
behind the request may not either, so that a step need not ask a long line one by one. ``chunk``
says how many tokens it gets in this step, of the ``budget`` that is left: more than it lacks is
cut, and a newcomer gets one at least (``admit`` is where to keep it waiting). If nobody got a token
and nobody could start, those that run are asked once more, with a view in which nobody waits.
``victim`` chooses who gives up its blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import index
from types import CoroutineType
from typing import Any, TypeVar

from toolkit.errors import InvalidConfig
from toolkit.request import Request

__all__ = ["NOBODY", "Nobody", "Policy", "ReadOnly", "SchedulerView"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

METHODS = ("rank", "admit", "chunk", "victim")


class Nobody(Enum):
    """What ``admit`` may answer: not this request, and none of those behind it; it is false."""

    NOBODY = "nobody"

    def __bool__(self) -> bool:
        return False


NOBODY = Nobody.NOBODY


@dataclass(frozen=True, slots=True)
class SchedulerView:
    """What a policy may look at; made once per step.

    ``running`` and ``waiting`` follow the step as it is planned: whoever starts moves from one to
    the other, and those that were passed over are in neither until the step is planned.
    """

    now_s: float
    token_budget: int  # of a whole step
    running: Sequence[Request]
    waiting: Collection[Request]
    num_free_blocks: int
    cached_tokens: Callable[[Request], int]  # how many of a request's tokens are in the cache
    last_step: int  # number of the step before, -1 at first


class ReadOnly(Collection[Request]):
    """The scheduler's own requests, for looking only: a policy cannot take one out of the line."""

    __slots__ = ("_requests",)

    def __init__(self, requests: Collection[Request]) -> None:
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __contains__(self, request: object) -> bool:
        return request in self._requests

    def __repr__(self) -> str:
        return repr(list(self._requests))


class ReadOnlyList(ReadOnly, Sequence[Request]):
    """The same for a list, with indices."""

    __slots__ = ()
    _requests: list[Request]

    def __getitem__(self, at: Any) -> Any:
        return self._requests[at]


class Policy:
    """A user's policy as the scheduler asks it: every answer is one that can be acted on.

    What raises, or answers without sense, is overruled in favour of first come, first served,
    with one warning per method and kind of mistake. Interrupts are held while a policy is asked,
    so what is caught here, ``exit()`` included, is the policy's own and never Ctrl-C.

    Args:
        policy: An object with any of the four methods, or a ``rank`` function.
        name: What reports, tables and warnings call it.

    Raises:
        InvalidConfig: one of its methods cannot be called.
    """

    def __init__(self, policy: Any, name: str) -> None:
        own: dict[str, Any] = {method: getattr(policy, method, None) for method in METHODS}
        if not any(function is not None for function in own.values()):
            own["rank"] = policy
        for method, function in own.items():
            if function is not None and not callable(function):
                raise InvalidConfig(f"policy {name}: {method} is {function!r}, not a method")
        self.name = name
        # Without a rank of its own it is first come, first served, which never changes.
        self.static = own["rank"] is None or bool(getattr(policy, "static", False))
        self.has_chunk = own["chunk"] is not None
        self._own = own
        self._warned: set[tuple[str, str]] = set()

    @property
    def modules(self) -> set[str]:
        """Where its own methods are from."""
        return {getattr(own, "__module__", "") for own in self._own.values() if own is not None}

    def rank(self, request: Request, view: SchedulerView) -> tuple[int, Any]:
        """Return a rank that compares with any other; one without sense comes last."""
        own = self._own["rank"]
        if own is None:
            return (0, 0)
        # As ``_ask`` does it, without the call: everybody is asked about in every step.
        try:
            value = own(request, view)
        except BaseException:
            self.overrule("rank", "raised", exc_info=True)
            return (1, 0)
        if type(value) is int:  # which compares by itself, and quickly
            return (0, value)
        value = self._checked("rank", _sortable, value)
        return (1, 0) if value is None else (0, _Rank(value, self))

    def admits(self, request: Request, view: SchedulerView) -> bool | Nobody:
        """Say whether a request may start now, or that nobody from it on may."""
        if self._own["admit"] is None:
            return True
        answer = self._ask("admit", _truth, request, view)
        return True if answer is None else answer

    def chunk(self, request: Request, want: int, budget: int, view: SchedulerView) -> int:
        """Return how many of the ``want`` tokens that a request can use now it gets."""
        if not self.has_chunk:
            return want
        number = self._ask("chunk", _count, request, budget, view)
        return want if number is None else min(number, want)

    def victim(self, candidates: Sequence[Request], view: SchedulerView) -> Request:
        """Return the candidate who is preempted, by default the last in rank."""
        if self._own["victim"] is None or len(candidates) == 1:
            return candidates[-1]
        chosen = self._ask("victim", lambda answer: _among(candidates, answer), candidates, view)
        return candidates[-1] if chosen is None else chosen

    def _ask(self, method: str, check: Callable[[Any], T], *arguments: Any) -> T | None:
        """Return the checked answer of the policy's own method, None where it has none of use."""
        try:
            answer = self._own[method](*arguments)
        except BaseException:
            self.overrule(method, "raised", exc_info=True)
            return None
        return self._checked(method, check, answer)

    def _checked(self, method: str, check: Callable[[Any], T], answer: Any) -> T | None:
        try:
            return check(answer)
        except BaseException:
            if isinstance(answer, CoroutineType):
                answer.close()  # else Python warns that nobody awaited it
            self.overrule(method, "returned no " + _EXPECTED[method], f": {_show(answer)}")
            return None

    def overrule(self, method: str, what: str, detail: str = "", *, exc_info: bool = False) -> None:
        """Say that the scheduler does something else, once per method and kind of mistake."""
        if (method, what) not in self._warned:
            self._warned.add((method, what))
            message = "policy %s is overruled from now on where its %s %s%s"
            logger.warning(message, self.name, method, what, detail, exc_info=exc_info)


_EXPECTED = {
    "rank": "value that has an order",
    "admit": "True or False",
    "chunk": "number of tokens",
    "victim": "request that can be preempted now",
}


def _sortable(rank: Any) -> Any:
    """Return the rank if it compares with itself, as None and an array do not, or NaN."""
    if type(rank) is not int and (rank < rank or rank != rank):
        raise ValueError("a rank must equal itself")
    return rank


def _truth(answer: Any) -> bool | Nobody:
    if isinstance(answer, Nobody):
        return answer
    # Not bool(answer): a method that forgets to return, or is a coroutine, has said nothing.
    if answer not in (True, False):
        raise ValueError("neither True nor False")
    return bool(answer)


def _count(advice: Any) -> int:
    number = index(advice)  # NumPy's and torch's integers are welcome
    if number < 0 or isinstance(advice, bool):
        raise ValueError("no number of tokens")
    return number


def _among(candidates: Sequence[Request], answer: Any) -> Request:
    # By identity: an == of somebody's own may say anything.
    return candidates[[candidate is answer for candidate in candidates].index(True)]


def _show(answer: Any) -> str:
    try:
        return repr(answer)[:80]
    except BaseException:
        return f"a {type(answer).__name__}"


class _Rank:
    """A user's rank that compares with any other: those that do not compare count as equal.

    Plain integers are not wrapped, so either side of a comparison may be one.
    """

    __slots__ = ("policy", "value")

    def __init__(self, value: Any, policy: Policy) -> None:
        self.value = value
        self.policy = policy

    def __lt__(self, other: Any) -> bool:
        return self._compares(self.value, _bare(other))

    def __gt__(self, other: Any) -> bool:
        return self._compares(_bare(other), self.value)

    def __eq__(self, other: object) -> bool:
        return not self < other and not self > other

    __hash__ = None  # type: ignore[assignment]  # equal ranks need not hash alike

    def _compares(self, value: Any, other: Any) -> bool:
        try:
            return bool(value < other)
        except BaseException:
            self.policy.overrule("rank", "does not compare with another's", exc_info=True)
            return False


def _bare(rank: Any) -> Any:
    return rank.value if isinstance(rank, _Rank) else rank
