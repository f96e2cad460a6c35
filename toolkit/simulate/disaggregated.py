"""Prompts on some machines, output on others: what moving the keys and values costs and gains.

Zhong et al. 2024 (DistServe, OSDI) and Patel et al. 2024 (Splitwise, ISCA): a request's prompt is
computed by a prefill replica, which samples its first token; its keys and values then cross a link
to a decode replica, which samples the others. So a prompt never stretches somebody's step between
two tokens, and each kind of machine can be chosen, and counted, for what it does.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

from toolkit.cache.blocks import PagedCache, PrefixMatch
from toolkit.cache.blocks.paged import BlockTable
from toolkit.engine.events import StepFinished
from toolkit.errors import InvalidConfig
from toolkit.record.rows import itl_figures
from toolkit.request import Request
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.fleet import FleetRun, own_engine, requests_of
from toolkit.simulate.machine import Machine, require_count
from toolkit.simulate.routers import LeastLoaded, choose
from toolkit.simulate.timeline import Load, Replica, Timeline

__all__ = ["Disaggregated", "ReceivingCache"]


class ReceivingCache(PagedCache):
    """The cache of a decode replica: what a newcomer's tokens need has come over the link.

    It takes blocks for them when it starts, and all but the last token count as found. A request
    that was preempted has lost them and computes them again.
    """

    def match_prefix(self, request: Request) -> PrefixMatch:
        """Return all tokens but the last, in blocks that ``open`` will take."""
        if request.num_preemptions:
            return super().match_prefix(request)
        return PrefixMatch((), request.num_tokens - 1)

    def open(self, request: Request, match: PrefixMatch) -> tuple[int, ...]:
        """Start a table with blocks for what was received, or with what was found."""
        if match.block_ids or not match.num_tokens:
            return super().open(request, match)
        table = self.pool.take(self.blocks_for(match.num_tokens), request.id)
        self._tables[request.id] = BlockTable(table)
        return tuple(table)


class Disaggregated:
    """Prefill replicas and decode replicas of a machine, with a link out of each prefill replica.

    A link moves one request's keys and values after the other, at ``transfer_gbps``. The prefill
    replica gives their blocks back when its step is over: what waits for the link takes no room
    there. Both kinds of replica are chosen by the shortest line.

    >>> pair = Disaggregated(Machine("opt-13b", "A100-40GB"), transfer_gbps=300)
    >>> run = pair.run([Arrival(0, 0.0, num_prompt_tokens=1000, num_output_tokens=5)])
    >>> round(1e3 * float(run.requests["transfer_s"][0]), 2)  # 1000 x 800 KiB
    2.73

    Args:
        machine: What each replica is.
        num_prefill: Replicas that compute prompts.
        num_decode: Replicas that generate.
        transfer_gbps: Of a link, in GB/s; by default that of the device.
        decode_machine: What the decode replicas are, if they are others.

    Raises:
        InvalidConfig: a count below 1, no link, or machines of different models.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        num_prefill: int = 1,
        num_decode: int = 1,
        transfer_gbps: float | None = None,
        decode_machine: Machine | None = None,
    ) -> None:
        require_count("num_prefill", num_prefill)
        require_count("num_decode", num_decode)
        transfer_gbps = machine.device.link_gbps if transfer_gbps is None else transfer_gbps
        if not transfer_gbps > 0:
            raise InvalidConfig(
                f"transfer_gbps={transfer_gbps!r}: keys and values have to cross a link; give its "
                f"GB/s, since {machine.device.name} names none"
            )
        decode_machine = machine if decode_machine is None else decode_machine
        if decode_machine.shape != machine.shape:
            raise InvalidConfig(
                f"{decode_machine.shape.name} cannot go on with the keys and values of "
                f"{machine.shape.name}: both machines need one model"
            )
        self.machine = machine
        self.decode_machine = decode_machine
        self.num_prefill = num_prefill
        self.num_decode = num_decode
        self.transfer_gbps = transfer_gbps

    def transfer_s(self, num_tokens: int) -> float:
        """Return the seconds in which so many tokens' keys and values cross a link."""
        return num_tokens * self.machine.shape.kv_bytes_per_token / (1e9 * self.transfer_gbps)

    def run(
        self, arrivals: Iterable[Arrival], *, progress: bool | None = None, **options: Any
    ) -> FleetRun:
        """Serve a load on new engines; ``options`` are those of ``Machine.engine()``.

        Its ``requests`` have the columns of one engine's that are known of both halves (the gap
        before the second token is one between tokens), and ``prefill_replica``, ``decode_replica``
        (-1: none was needed) and ``transfer_s``, which is from the first token until the last key
        has arrived. ``records`` are those of the prefill replicas, then those of the decode
        replicas.

        Raises:
            InvalidConfig: an option that the decode replicas cannot have: an allocator.
        """
        if "allocator" in options:
            raise InvalidConfig(
                "Disaggregated(...).run(allocator=...): the decode replicas have a cache of their "
                "own; leave it out"
            )
        timeline = Timeline()
        course = _Course(self, timeline, options)
        with Load(arrivals, timeline, course.deliver, progress=progress) as load:
            course.load = load
            timeline.run()
        return FleetRun(
            requests=course.requests(),
            records=tuple(each.engine.record for each in (*course.prefills, *course.decodes)),
            title=f"{self.num_prefill} prefill and {self.num_decode} decode replicas of "
            f"{self.machine.shape.name}, {self.transfer_gbps:g} GB/s between them",
        )

    def __repr__(self) -> str:
        return (
            f"Disaggregated({self.num_prefill} prefill x {self.machine.device.name}, "
            f"{self.num_decode} decode x {self.decode_machine.device.name}, "
            f"{self.transfer_gbps:g} GB/s)\n{self.machine!r}"
        )


class _Course:
    """One run: its replicas, what crosses their links, and who has come how far."""

    load: Load

    def __init__(self, pair: Disaggregated, timeline: Timeline, options: dict[str, Any]) -> None:
        self._pair = pair
        self._timeline = timeline
        self._route = LeastLoaded()
        self._asked: dict[int, Arrival] = {}  # by id, until its prompt is computed
        self._link_free_s = [0.0] * pair.num_prefill
        self._transfers: list[tuple[int, float]] = []  # arrival id, seconds
        self.prefills = tuple(
            Replica(at, own_engine(pair.machine, options), timeline, self._prefilled)
            for at in range(pair.num_prefill)
        )
        receiving = {**options, "allocator": ReceivingCache, "enable_prefix_caching": False}
        self.decodes = tuple(
            Replica(at, own_engine(pair.decode_machine, receiving), timeline, self._decoded)
            for at in range(pair.num_decode)
        )
        self._later_s = [_moments(replica) for replica in self.decodes]

    def deliver(self, arrival: Arrival, due_s: float) -> None:
        """Give a request's prompt, and its first token, to a prefill replica."""
        self._asked[arrival.arrival_id] = arrival
        first = arrival._replace(num_output_tokens=1)
        choose(self._route, first, self.prefills).add(first, due_s)

    def _prefilled(self, replica: Replica, first: Arrival, request: Request | None) -> None:
        arrival = self._asked.pop(first.arrival_id)
        if request is None or request.error is not None or arrival.num_output_tokens == 1:
            self.load.ended(arrival.arrival_id)
            return
        begin_s = max(self._timeline.now_s, self._link_free_s[replica.index])
        end_s = begin_s + self._pair.transfer_s(arrival.num_prompt_tokens)
        self._link_free_s[replica.index] = end_s
        self._transfers.append((arrival.arrival_id, end_s - self._timeline.now_s))
        self._timeline.arrival(end_s, lambda: self._go_on(arrival, end_s))

    def _go_on(self, arrival: Arrival, due_s: float) -> None:
        rest = arrival._replace(
            num_prompt_tokens=arrival.num_prompt_tokens + 1,  # the first token with it
            num_output_tokens=arrival.num_output_tokens - 1,
            prompt_token_ids=None,
            block_keys=(),
            key_tokens=None,
        )
        choose(self._route, rest, self.decodes).add(rest, due_s)

    def _decoded(self, replica: Replica, rest: Arrival, request: Request | None) -> None:
        self.load.ended(rest.arrival_id)

    def requests(self) -> pd.DataFrame:
        """Return a row per arrival, of both its halves."""
        first, rest = (
            requests_of(each).set_index("arrival_id") for each in (self.prefills, self.decodes)
        )
        rest = rest.reindex(first.index)
        goes_on = rest["request_id"].notna()
        table = first[[name for name in first.columns if name in _KEPT or name.startswith("tags.")]]
        table = table.rename(columns={"replica": "prefill_replica"})
        for name in ("status", "finish_reason", "error", "last_token_s", "finished_s"):
            table[name] = rest[name].where(goes_on, first[name])
        for name in ("num_output_tokens", "num_preemptions", "num_recomputed_tokens"):
            table[name] = first[name] + rest[name].where(goes_on, 0).astype("int64")
        table["decode_replica"] = rest["replica"].where(goes_on, -1).astype("int64")
        table["transfer_s"] = pd.Series(dict(self._transfers), dtype="float64")
        table[_ITL_NAMES] = [
            self._itl_figures(*row)
            for row in zip(
                table["first_token_s"], table["decode_replica"], rest["request_id"], strict=True
            )
        ]
        table["e2e_s"] = table["last_token_s"] - table["arrival_s"]
        gaps = (table["num_output_tokens"] - 1).where(table["num_output_tokens"] > 1)
        table["tpot_s"] = (table["last_token_s"] - table["first_token_s"]) / gaps
        return table.reset_index()

    def _itl_figures(
        self, first_token_s: float, decode_replica: int, request_id: Any
    ) -> tuple[float, float, float]:
        later_s = self._later_s[decode_replica].get(request_id, ()) if decode_replica >= 0 else ()
        return itl_figures(array("d", [first_token_s, *later_s]))


def _moments(replica: Replica) -> dict[str, array[float]]:
    """Return when each of a replica's requests gets a token, by id; it fills as they come."""
    moments: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def note(event: StepFinished) -> None:
        for update in event.report.updates:
            moments[update.request_id].extend([event.report.sent_s] * len(update.token_ids))

    replica.engine.on(StepFinished, note)
    return moments


_ITL_NAMES = ["itl_p50_s", "itl_p99_s", "itl_max_s"]
_KEPT = (
    "request_id",
    "replica",
    "priority",
    "arrival_s",
    "first_scheduled_s",
    "first_token_s",
    "num_prompt_tokens",
    "num_cached_tokens",
    "ttft_s",
)
