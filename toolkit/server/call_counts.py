"""Count HTTP calls: by endpoint, method and status, how long they took, how many are open."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.record.histogram import HTTP_BOUNDS_S, Histogram

__all__ = ["CallCounts", "CountCalls"]

# What no route matches shares one label, else whoever scans for paths fills the memory.
_NO_ROUTE = "none"


class CallCounts(Collector):
    """Adds up the calls of one server; written and read on its event loop or under the GIL."""

    def __init__(self) -> None:
        self.num_open = 0
        self._num_calls: Counter[tuple[str, str, int]] = Counter()
        self._duration_s: dict[tuple[str, str], Histogram] = {}

    def add(self, *, route: str, method: str, status: int, duration_s: float) -> None:
        """Count a call that ended."""
        self._num_calls[route, method, status] += 1
        if (route, method) not in self._duration_s:
            self._duration_s[route, method] = Histogram(HTTP_BOUNDS_S)
        self._duration_s[route, method].observe(duration_s)

    def describe(self) -> Iterable[Metric]:
        """Tell a registry which names belong here, for scrapes that ask for some alone."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield the families: as vLLM's instrumentation has them, and one with exact statuses."""
        calls = self._num_calls.copy()
        grouped: Counter[tuple[str, ...]] = Counter()
        for (route, method, status), count in calls.items():
            grouped[route, method, f"{status // 100}xx"] += count
        total = CounterMetricFamily(
            "http_requests",
            "HTTP calls by handler, method and class of status.",
            labels=["handler", "method", "status"],
        )
        for labels, count in grouped.items():
            total.add_metric(labels, count)
        yield total
        duration = HistogramMetricFamily(
            "http_request_duration_seconds",
            "From the head of a call to the last byte of its answer.",
            labels=["handler", "method"],
        )
        for key, histogram in self._duration_s.copy().items():
            duration.add_metric(key, histogram.cumulative(), sum_value=histogram.sum)
        yield duration
        exact = CounterMetricFamily(
            "toolkit:http_requests",
            "HTTP calls by endpoint and status.",
            labels=["endpoint", "method", "status"],
        )
        for (route, method, status), count in calls.items():
            exact.add_metric([route, method, str(status)], count)
        yield exact
        yield GaugeMetricFamily(
            "http_requests_inprogress", "Posts that are being answered.", value=self.num_open
        )


class CountCalls:
    """Middleware that counts every HTTP call when it ends."""

    def __init__(self, app: ASGIApp, *, counts: CallCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # of an exception that nobody catches further inside
        start_s = time.perf_counter()
        is_work = scope["method"] == "POST"
        self._counts.num_open += is_work
        open_calls = is_work

        def close() -> None:
            nonlocal open_calls
            self._counts.num_open -= open_calls
            open_calls = False

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                close()  # whoever has the answer finds the server free of it
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            close()
            self._counts.add(
                route=_route(scope),
                method=scope["method"],
                status=status,
                duration_s=time.perf_counter() - start_s,
            )


def _route(scope: Scope) -> str:
    """Return the template of the path that was matched, without converters."""
    path = getattr(scope.get("route"), "path", _NO_ROUTE)
    return path.replace(":path}", "}")
