"""The test of identity: with a run's own durations, the simulation must come out as the run did.

Not similarly: the same chunks in the same steps, the same blocks, preemptions and prefix hits. It
separates the error of a cost model from faults of the simulation (`toolkit.simulate.recorded` says
how arrivals are placed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from toolkit.clock import VirtualClock
from toolkit.engine import Engine
from toolkit.engine.entries import PolicyChosen, pristine
from toolkit.record import Record
from toolkit.simulate.drive import drive
from toolkit.simulate.recorded import RecordedCost
from toolkit.simulate.replay import journal_of, recorded_config
from toolkit.simulate.runner import SimulatedRunner

__all__ = ["Identity", "identity"]

# What has to agree, by table: all that the schedule decides, and nothing that a clock says.
_KEYS = {
    "chunks": ["step", "request_id"],
    "steps": ["step"],
    "requests": ["request_id"],
    "blocks": ["block_id", "start_step", "request_id"],
}
_COLUMNS = {
    "chunks": ["start", "end", "is_recomputed"],
    "steps": [
        "num_tokens",
        "num_prompt_tokens",
        "num_running",
        "num_waiting",
        "num_admitted",
        "num_preempted",
        "num_finished",
        "num_cached_tokens",
        "num_recomputed_tokens",
        "attention_work",
        "blocks_used",
        "blocks_cached",
        "num_evicted",
        "limited_by",
    ],
    "requests": [
        "num_cached_tokens",
        "num_output_tokens",
        "num_steps",
        "num_preemptions",
        "num_recomputed_tokens",
        "peak_blocks",
    ],
    "blocks": ["end_step", "how", "num_filled", "num_hits"],
}


@dataclass(frozen=True, slots=True)
class Identity:
    """How much of a run's schedule its simulation has; prints and renders as the table."""

    simulated: Record
    table: pd.DataFrame  # by table: rows of the run, and how many of them the simulation has
    first_difference: str | None

    @property
    def is_identical(self) -> bool:
        """Whether nothing differs."""
        return self.first_difference is None

    def __repr__(self) -> str:
        told = self.first_difference
        return (
            f"{'identical' if told is None else f'not identical: {told}'}\n{self.table.to_string()}"
        )

    def _repr_html_(self) -> str:
        first, *_ = repr(self).split("\n")
        return f"<p>{first}</p>{self.table.to_html()}"


def identity(record: Record) -> Identity:
    """Simulate a recorded run with its own durations and tokens; compare the schedules.

    Blocks are compared one by one where the record's level is "blocks".

    Raises:
        RecordError: something happened in the run that is no part of a load, see ``RecordedCost``.
        EngineError: the record has no journal.
    """
    cost = RecordedCost(record)
    simulated, names = _simulate(record, cost)
    numbers = {cost.base.step + index: step for index, step in enumerate(cost.steps)}
    rows, first = [], None
    for table in _KEYS:
        wanted = getattr(record, table)
        found = _renamed(getattr(simulated, table), names, numbers)
        if table == "steps":
            wanted = wanted[wanted["num_requests"] > 0]
        if not len(wanted):
            continue  # not recorded at this level
        missing = _differences(wanted, found, table)
        rows.append((table, len(wanted), len(wanted) - len(missing)))
        if first is None and len(missing):
            first = f"{table}: {missing.iloc[0].to_dict()}"
    columns = ["table", "rows", "identical"]
    return Identity(simulated, pd.DataFrame(rows, columns=columns).set_index("table"), first)


def _simulate(record: Record, cost: RecordedCost) -> tuple[Record, dict[str, str]]:
    """Return the record of the simulation, and recorded request ids by simulated ones."""
    clock, base = VirtualClock(), cost.base
    engine = Engine(
        SimulatedRunner(cost, clock),
        recorded_config(record, journal_of(record)),
        clock=clock,
        recorder=Record(level=record.level),
    )
    engine.intake.numbers = base.num_requests, base.num_samples
    engine.scheduler.start_at(base.step)
    if base.pool is not None:
        engine.cache.pool.set_state(base.pool)
    names: dict[str, str] = {}
    for changes, start_s, arrivals, request_ids in cost.stretches:
        for change in changes:
            if isinstance(change, PolicyChosen):
                engine.set_policy(pristine(change.policy))
            else:
                engine.reset_prefix_cache()
        clock.advance(max(0.0, start_s - clock.now()))
        found = drive(engine, arrivals, progress=False)
        names |= {
            found[arrival.arrival_id]: name
            for arrival, name in zip(arrivals, request_ids, strict=True)
            if arrival.arrival_id in found
        }
    simulated: Record = engine.record
    return simulated, names


def _renamed(
    table: pd.DataFrame, names: Mapping[str, str], numbers: Mapping[int, int]
) -> pd.DataFrame:
    """Return a table with the request ids and step numbers of the run."""
    renamed = table.copy()
    if "request_id" in table:
        renamed["request_id"] = table["request_id"].map(names)
    for column in ("step", "start_step", "end_step"):
        if column in table:
            renamed[column] = table[column].map(numbers).astype(table[column].dtype)
    return renamed


def _differences(wanted: pd.DataFrame, found: pd.DataFrame, table: str) -> pd.DataFrame:
    """Return the rows of the run that the simulation has not, or has otherwise."""
    keys, columns = _KEYS[table], _COLUMNS[table]
    both = wanted[keys + columns].merge(
        found[keys + columns], how="left", on=keys, suffixes=("", "_simulated"), indicator=True
    )
    same = (both["_merge"] == "both").to_numpy()
    for column in columns:
        one, other = both[column], both[f"{column}_simulated"]
        agrees = ((one == other) | (one.isna() & other.isna())).fillna(False)
        same = same & agrees.to_numpy(np.bool_)
    return both[~same].drop(columns="_merge")
