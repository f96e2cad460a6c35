"""The scheduling policies that are built in, each a lesson in what one can wish for.

All are written against the contract in engine.policy alone, so each could as well stand in a
notebook cell. What one of them optimises, somebody pays for: the docstrings say who.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from toolkit.engine.fair import Fair
from toolkit.engine.policy import METHODS, Policy, SchedulerView
from toolkit.errors import InvalidConfig
from toolkit.request import Request, Status

__all__ = [
    "POLICIES",
    "DecodeFirst",
    "Fair",
    "Fcfs",
    "LongestPrefixFirst",
    "Policy",
    "PrefillFirst",
    "Priority",
    "SchedulerView",
    "ShortestFirst",
    "ShortestOutputFirst",
    "resolve_policy",
]

logger = logging.getLogger(__name__)


class Fcfs:
    """First come, first served: nobody is overtaken, so nobody starves.

    It costs the short ones, who wait behind whatever long one came before them. The order of Orca
    (Yu et al., OSDI 2022, section 4.2) and vLLM's default.
    """

    static = True

    def rank(self, request: Request, view: SchedulerView) -> int:
        """All alike: ties go by arrival."""
        return 0


class Priority:
    """The smallest ``request.priority`` first, then by arrival: what is urgent waits least.

    Who is less urgent starves for as long as more urgent requests keep coming, and is preempted for
    them when blocks run out. Smaller is more urgent, as in vLLM.
    """

    static = True

    def rank(self, request: Request, view: SchedulerView) -> int:
        """The number that the caller gave."""
        return request.priority


class ShortestFirst:
    """The fewest prompt tokens left to compute first: the least mean time to the first token.

    Shortest remaining processing time (Schrage, Operations Research 16, 1968), of prompts. A long
    prompt starves for as long as shorter ones keep coming.
    """

    def rank(self, request: Request, view: SchedulerView) -> int:
        """What is left of the prompt; nothing, for requests that generate."""
        return max(0, request.num_prompt_tokens - request.num_computed_tokens)


class ShortestOutputFirst:
    """The fewest output tokens left first, by ``tags["predicted_tokens"]``: the least mean latency.

    Shortest remaining time again, of outputs, which only a prediction knows (for example Fu et al.,
    "Efficient LLM Scheduling by Learning to Rank", NeurIPS 2024). Long answers starve for as long
    as shorter ones keep coming, and requests without a prediction come last of all. One that
    outlives its prediction counts as about to end.
    """

    def __init__(self) -> None:
        self._has_warned = False

    def rank(self, request: Request, view: SchedulerView) -> tuple[bool, float]:
        """Those with a prediction first, by what is left of it."""
        predicted = self._predicted_tokens(request)
        if predicted is None:
            return (True, 0.0)
        return (False, max(0.0, predicted - request.num_output_tokens))

    def _predicted_tokens(self, request: Request) -> float | None:
        """Parse the tag, text when it came as OpenAI's metadata; what does not parse is absent."""
        value = request.tags.get("predicted_tokens")
        if value is None:
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if 0 <= number < math.inf:  # which NaN is not
            return number
        if not self._has_warned:
            self._has_warned = True
            message = "policy shortest-output-first: predicted_tokens=%.80r of %s counts as absent"
            logger.warning(
                message + ", and so does every other that is no count", value, request.id
            )
        return None


class LongestPrefixFirst:
    """The most cached tokens first: prefixes are used before they are evicted, so more of them hit.

    A prompt that shares nothing starves for as long as others hit, and every step looks every
    waiting prompt up in the cache. Section 3 of SGLang (Zheng et al., NeurIPS 2024,
    arXiv:2312.07104), which shows that the order is optimal for a batch known beforehand.
    """

    def rank(self, request: Request, view: SchedulerView) -> tuple[int, int]:
        """Those that run keep their place, before all that wait."""
        if request.status is Status.RUNNING:
            return (0, 0)
        return (1, -view.cached_tokens(request))


class PrefillFirst:
    """Prompts before output tokens: the least time to the first token, and full batches soon.

    While prompts can be computed, nobody who generates gets a token, so a stream stalls whenever
    others arrive: the schedule that vLLM began with, and what Sarathi (algorithm 2;
    see ``DecodeFirst``) calls a generation stall.
    """

    static = True

    def __init__(self) -> None:
        self._view: SchedulerView | None = None
        self._has_prompts = False

    def rank(self, request: Request, view: SchedulerView) -> int:
        """First come, first served."""
        return 0

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        """All to prompts; to those that generate nothing, unless no prompt is left."""
        if view is not self._view:  # looked up once per view: who runs is asked one by one
            self._view = view
            self._has_prompts = bool(view.waiting) or not all(map(_is_generating, view.running))
        return 0 if self._has_prompts and _is_generating(request) else budget


class DecodeFirst:
    """Those that generate first, then prompts that have begun, then new ones: streams never stall.

    A prompt gets what the running streams leave of a step's budget, so a small budget bounds the
    time between two tokens and stretches the time to the first. The stall-free batches of
    Sarathi-Serve (Agrawal et al., OSDI 2024, algorithm 3). Nobody starves.
    """

    def rank(self, request: Request, view: SchedulerView) -> int:
        """Zero while it generates, one once it has begun, two before."""
        if _is_generating(request):
            return 0
        return 2 if request.status is Status.WAITING else 1


def _is_generating(request: Request) -> bool:
    """Whether all that it lacks is the token after its last one."""
    return request.num_output_tokens > 0 and request.num_computed_tokens == request.num_tokens - 1


POLICIES: dict[str, Callable[[], Any]] = {
    "fcfs": Fcfs,
    "priority": Priority,
    "shortest-first": ShortestFirst,
    "shortest-output-first": ShortestOutputFirst,
    "longest-prefix-first": LongestPrefixFirst,
    "prefill-first": PrefillFirst,
    "decode-first": DecodeFirst,
    "fair": Fair,
}


def resolve_policy(policy: Any) -> Policy:
    """Turn a name, a function, a class or an object into a ``Policy``.

    Raises:
        InvalidConfig: an unknown name, a class that needs arguments, or neither a function nor an
            object with any of the methods.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise InvalidConfig(
                f"policy={policy!r} is not one of {', '.join(POLICIES)}; "
                "a function (request, view) -> sortable is a policy too"
            )
        return Policy(POLICIES[policy](), policy)
    if isinstance(policy, type):
        try:
            return Policy(policy(), policy.__name__)
        except TypeError as error:
            raise InvalidConfig(
                f"policy={policy.__name__} is not built without arguments ({error}); "
                "give an object of it"
            ) from error
    if any(hasattr(policy, method) for method in METHODS):
        return Policy(policy, type(policy).__name__)
    if callable(policy):
        return Policy(policy, getattr(policy, "__name__", repr(policy)))
    raise InvalidConfig(
        f"policy={policy!r} is neither a name, a function (request, view) -> sortable, nor an "
        "object with rank, admit, chunk or victim"
    )
