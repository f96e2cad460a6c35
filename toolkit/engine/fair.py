"""Share an engine fairly between tenants: the Virtual Token Counter.

Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024 (arXiv:2401.00588), section 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from toolkit.engine.policy import SchedulerView
from toolkit.request import Request, Status

__all__ = ["Fair"]

# What a token costs, as in the paper's experiments: output tokens are computed one at a time.
PROMPT_WEIGHT = 1
OUTPUT_WEIGHT = 2

# Tenants that are away but still owe are remembered up to this number: some megabytes.
MAX_AWAY = 10_000


class Fair:
    """The tenant that was served least goes first, so that no tenant can crowd out the others.

    A tenant is ``tags["tenant"]``, else ``tags["user"]``; requests with neither are one tenant
    together. Each has a counter: a prompt token adds 1 when its request starts, an output token 2.
    A tenant that had nothing in line is lifted to the least counter of those who have, so that it
    cannot bank credit while it is away.

    It costs the heavy users, and every step counts through the whole line. No tenant starves; among
    the requests of one tenant it is first come, first served. Tokens found in the cache or computed
    again after a preemption cost as if they were neither; n samples of a prompt pay for it once.

    Args:
        tag: The tag that tells tenants apart, in place of those two.
    """

    def __init__(self, tag: str | None = None) -> None:
        self._tags = ("tenant", "user") if tag is None else (tag,)
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._lines: dict[str, dict[Request, int]] = {}  # in line, and what its elders will add
        self._served: dict[Request, int] = {}  # started, and the output tokens that were counted
        self._last_to_leave = ""  # the tenant that was in line last
        self._floor = 0
        self._view: SchedulerView | None = None
        self._last_step: int | None = None
        self._joins_left = 0  # until what ended meanwhile is dropped, step or no step
        self._forget_at = 64  # counters; what is dropped at doubling sizes costs next to nothing

    def rank(self, request: Request, view: SchedulerView) -> int:
        """What its tenant was served, and will have been when this request's turn comes."""
        tenant = self._tenant(request)
        is_known = request in self._served or request in self._lines.get(tenant, ())
        # The first question after a step, or the first about somebody known in the next one.
        if view.last_step != self._last_step or (is_known and view is not self._view):
            self._view, self._last_step = view, view.last_step
            self._settle()
        if not is_known:
            self._join(request, tenant)
        return self._counters[tenant] + self._lines.get(tenant, {}).get(request, 0)

    def _tenant(self, request: Request) -> str:
        values = (request.tags.get(tag) for tag in self._tags)
        return next((str(value) for value in values if value is not None), "")

    def _join(self, request: Request, tenant: str) -> None:
        """Put a request in its tenant's line, and lift the tenant if that line is new."""
        self._joins_left -= 1
        if self._joins_left < 0:
            self._settle()
        if tenant not in self._lines:
            self._counters[tenant] = max(self._counters[tenant], self._floor)
        if request.first_scheduled_s is not None:  # it ran before this policy was assigned
            self._served[request] = request.num_output_tokens
            return
        if not self._lines:
            self._floor = self._counters[tenant]
        line = self._lines.setdefault(tenant, {})
        last = next(reversed(line), None)
        line[request] = 0 if last is None else line[last] + _prompt_cost(last)

    def _settle(self) -> None:
        """Count what was served since the last time, and forget what ended."""
        for tenant, line in list(self._lines.items()):
            started = [request for request in line if request.first_scheduled_s is not None]
            self._served.update(dict.fromkeys(started, 0))
            self._counters[tenant] += sum(map(_prompt_cost, started))
            self._lines[tenant] = _in_line(line)
            if not self._lines[tenant]:
                del self._lines[tenant]
                self._last_to_leave = tenant
        for request, num_counted in list(self._served.items()):
            num_new = request.num_output_tokens - num_counted
            self._counters[self._tenant(request)] += OUTPUT_WEIGHT * num_new
            self._served[request] = request.num_output_tokens
            if request.is_finished:
                del self._served[request]
        in_line = [self._counters[tenant] for tenant in self._lines]
        self._floor = min(in_line, default=self._counters.get(self._last_to_leave, self._floor))
        self._joins_left = 64 + len(self._served) + sum(map(len, self._lines.values()))
        if len(self._counters) > self._forget_at:
            self._forget_tenants()

    def _forget_tenants(self) -> None:
        """Drop counters that a lift would overwrite; of too many others, those that owe least."""
        active = {self._tenant(request) for request in self._served} | set(self._lines)
        active.add(self._last_to_leave)
        away = [t for t, count in self._counters.items() if t not in active and count > self._floor]
        away.sort(key=self._counters.__getitem__)
        for tenant in set(self._counters) - active - set(away[-MAX_AWAY:]):
            del self._counters[tenant]
        self._forget_at = 64 + 2 * len(self._counters)


def _prompt_cost(request: Request) -> int:
    """Return what a request adds to its tenant's counter when it starts."""
    return PROMPT_WEIGHT * request.num_prompt_tokens if request.parent_id is None else 0


def _in_line(requests: Iterable[Request]) -> dict[Request, int]:
    """Keep those that wait for their first step, oldest first, each with its elders' cost."""
    line, cost = {}, 0
    for request in sorted(requests, key=lambda request: request.arrival_index):
        if request.status is Status.WAITING:
            line[request] = cost
            cost += _prompt_cost(request)
    return line
