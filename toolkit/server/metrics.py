"""GET /metrics for Prometheus, GET /load for balancers, and the counts behind them."""

from __future__ import annotations

from fastapi import Request as HttpRequest
from fastapi import Response
from prometheus_client.exposition import choose_encoder, generate_latest

from toolkit.record.engine_counts import EngineCounts
from toolkit.record.prometheus import EngineCollector, metrics_registry
from toolkit.server.call_counts import CallCounts
from toolkit.server.metrics_table import MetricsTable
from toolkit.server.served import ServedModel

__all__ = ["ServerMetrics", "load", "metrics"]


class ServerMetrics:
    """The counts of one server and its engine, in a registry of their own.

    They count from ``open()`` to ``close()``.
    """

    def __init__(self, served: ServedModel) -> None:
        self.calls = CallCounts()
        self._engine = EngineCounts(served.engine)
        engine = EngineCollector(self._engine, model_name=served.listed_names[0])
        self.registry = metrics_registry(engine, self.calls)

    def open(self) -> None:
        """Listen to the engine."""
        self._engine.attach()

    def snapshot(self) -> MetricsTable:
        """Return the present values."""
        return MetricsTable(generate_latest(self.registry).decode())

    def close(self) -> None:
        """Listen to the engine no more; the values stay. Idempotent."""
        self._engine.detach()


# Not a coroutine: writing some hundred series takes milliseconds, which streams need not wait.
def metrics(http: HttpRequest) -> Response:
    """Answer a scrape, in Prometheus' text format or in OpenMetrics, whichever is accepted.

    ``name[]=...`` in the query asks for these series alone.
    """
    own: ServerMetrics = http.app.state.metrics
    encode, media_type = choose_encoder(http.headers.get("accept", ""))
    names = http.query_params.getlist("name[]")
    registry = own.registry.restricted_registry(names) if names else own.registry
    return Response(encode(registry), headers={"content-type": media_type})


async def load(http: HttpRequest) -> dict[str, int]:
    """Say how many calls are being worked on, as vLLM does."""
    own: ServerMetrics = http.app.state.metrics
    return {"server_load": own.calls.num_open}
