"""Fleet: several replicas of a machine behind a router, on one time line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pandas as pd

from toolkit.engine import Engine
from toolkit.record import Record
from toolkit.record.summary import summarise
from toolkit.request import Request
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.machine import Machine, require_count, require_options
from toolkit.simulate.routers import Router, choose, resolve_router, router_name
from toolkit.simulate.timeline import Load, Replica, Timeline

__all__ = ["Fleet", "FleetRun", "own_engine", "requests_of"]


@dataclass(frozen=True, slots=True, eq=False)
class FleetRun:
    """What several engines did under one load; times count from its start.

    ``requests`` has the columns of a record's, and ``arrival_id`` and ``replica`` before them; a
    row per arrival that was served, in the order of ``arrival_id``.
    """

    requests: pd.DataFrame
    records: tuple[Record, ...]  # by replica
    title: str

    def summary(
        self,
        by: str | Sequence[str] | None = None,
        *,
        warmup_s: float = 0.0,
        slo: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Return the metrics over all replicas, as ``Record.summary`` does; ITL is left empty.

        Args:
            by: Columns of ``requests`` to group by, such as "replica".
            warmup_s: Leaves out who arrived in the first seconds.
            slo: Limits by name.
        """
        return summarise(self.requests, None, by=by, warmup_s=warmup_s, slo=slo)

    def __repr__(self) -> str:
        return f"FleetRun({self.title}: {len(self.requests)} requests)"


class Fleet:
    """Replicas of one machine, none of which knows of the others, and a router before them.

    >>> fleet = Fleet(Machine("opt-13b", "A100-40GB"), replicas=2, router="least-loaded")
    >>> run = fleet.run([Arrival(number, 0.0, 100, 3) for number in range(4)])
    >>> run.requests["replica"].tolist()
    [0, 1, 0, 1]

    Args:
        machine: What each of them is.
        replicas: How many.
        router: "random", "least-loaded" or "prefix-aware", or a function
            ``(arrival, replicas) -> index``; see `routers`.
        seed: Of random choices.

    Raises:
        InvalidConfig: no replica, or no such router.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        replicas: int = 4,
        router: str | Router = "random",
        seed: int = 0,
    ) -> None:
        require_count("replicas", replicas)
        resolve_router(router, seed)
        self.machine = machine
        self.num_replicas = replicas
        self.router = router
        self.seed = seed

    def run(
        self, arrivals: Iterable[Arrival], *, progress: bool | None = None, **options: Any
    ) -> FleetRun:
        """Serve a load on new engines; ``options`` are those of ``Machine.engine()``.

        A request goes to its replica when it is due, and is in line there when the step that it
        falls into is over. Engine ids repeat between replicas; ``arrival_id`` does not.
        """
        router = resolve_router(self.router, self.seed)
        timeline = Timeline()

        def deliver(arrival: Arrival, due_s: float) -> None:
            choose(router, arrival, replicas).add(arrival, due_s)

        def end(replica: Replica, arrival: Arrival, request: Request | None) -> None:
            load.ended(arrival.arrival_id)

        replicas = tuple(
            Replica(at, own_engine(self.machine, options), timeline, end)
            for at in range(self.num_replicas)
        )
        with Load(arrivals, timeline, deliver, progress=progress) as load:
            timeline.run()
        return FleetRun(
            requests=requests_of(replicas),
            records=tuple(replica.engine.record for replica in replicas),
            title=f"{self.num_replicas} x {self.machine.name}, router {router_name(self.router)}",
        )

    def __repr__(self) -> str:
        return (
            f"Fleet of {self.num_replicas}, router {router_name(self.router)!r}, each\n"
            f"{self.machine!r}"
        )


def requests_of(replicas: Sequence[Replica]) -> pd.DataFrame:
    """Return their tables of requests as one, with ``arrival_id`` and ``replica`` before the rest.

    A row per arrival that was served, in the order of ``arrival_id``.
    """
    tables = []
    for replica in replicas:
        table = replica.engine.record.requests
        ids = table["request_id"].map(replica.arrival_ids).astype("int64")
        table.insert(0, "arrival_id", ids)
        table.insert(1, "replica", replica.index)
        tables.append(table)
    served = [table for table in tables if len(table)] or tables[:1]
    merged = pd.concat(served, ignore_index=True)
    return merged.sort_values("arrival_id", kind="stable", ignore_index=True)


def own_engine(machine: Machine, options: Mapping[str, Any]) -> Engine:
    """Return an engine of a machine; what its policy remembers is of this engine alone.

    Raises:
        InvalidConfig: no such option, or one that makes no sense.
    """
    require_options(options)
    own = {"policy": deepcopy(options["policy"])} if "policy" in options else {}
    return machine.engine(**{**options, **own})
