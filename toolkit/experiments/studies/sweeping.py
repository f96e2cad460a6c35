"""Run one workload over policies, rates and seeds: a tidy table, a row per run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.studies.cells import Cell, at_rate, labelled
from toolkit.experiments.studies.pool import results_of
from toolkit.simulate.progress import progress_bar

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["sweep"]


def sweep(
    w: Workload,
    on: Any,
    *,
    policy: Any = None,
    rate: Any = None,
    seeds: Iterable[int] = range(5),
    over: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    processes: int = 1,
    slo: Mapping[str, float] | None = None,
    warmup_s: float = 0.0,
    progress: bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Run a workload under every policy, at every rate, with every seed.

    Runs with one seed ask for the same requests, whatever their policy and rate (common random
    numbers), so their difference is not one of luck.

    Args:
        w: The load; its own rate is scaled.
        on: What serves it, as ``run`` takes it.
        policy: One or several, or a mapping from labels to policies; None leaves the target's.
        rate: One or several, in requests per second; None leaves the workload's.
        seeds: Of the workload's draws.
        over: More axes: options of ``run`` by name, with the values that each takes.
        folder: Keeps each row; what is there already is read and not run again.
        processes: How many runs at a time; more than one only of simulations.
        slo: Limits by metric, for ``goodput_per_s`` and ``goodput_share``.
        warmup_s: Leaves out what was scheduled in the first seconds of each run.
        progress: Whether to show a bar; None shows it where it takes long and somebody looks on.
        options: Of every run.

    Returns:
        policy, rate, seed, the axes of ``over``, then the columns of ``measures``. In this order
        whatever was done first.

    Raises:
        InvalidConfig: an axis is empty or ambiguous; several processes for what is no simulation.
    """
    if processes > 1 and (isinstance(on, str) or not callable(getattr(on, "run", None))):
        raise InvalidConfig(
            f"processes={processes} is for simulations; a {type(on).__name__} serves one load at "
            "a time"
        )
    policies = {"default": None} if policy is None else labelled("policy", policy)
    axes = {name: labelled(name, values) for name, values in (over or {}).items()}
    cells = [
        Cell(
            labels={"policy": name, **labels, **dict(zip(axes, at, strict=True))},
            workload=variant,
            on=on,
            options={
                **options,
                "policy": chosen,
                **{axis: axes[axis][label] for axis, label in zip(axes, at, strict=True)},
            },
            summary={"slo": slo, "warmup_s": warmup_s},
        )
        for labels, variant in _variants(w, rate, seeds)
        for name, chosen in policies.items()
        for at in product(*axes.values())
    ]
    return pd.DataFrame(_rows(cells, folder, processes, progress))


def _variants(
    w: Workload, rate: Any, seeds: Iterable[int]
) -> Iterator[tuple[dict[str, Any], Workload]]:
    """Yield the workload with each seed at each rate, and the labels that tell them apart."""
    for seed in seeds:
        drawn = w.with_seed(seed)
        if rate is None:
            yield {"rate": drawn.rate, "seed": seed}, drawn
            continue
        for value in labelled("rate", rate).values():
            yield {"rate": float(value), "seed": seed}, at_rate(drawn, value)


def _rows(
    cells: list[Cell], folder: str | Path | None, processes: int, progress: bool | None
) -> list[dict[str, Any]]:
    """Return a row per cell, in their order; read, or run and kept."""
    place = None if folder is None else Path(folder)
    rows = [None if place is None else cell.kept(place) for cell in cells]
    missing = [at for at, row in enumerate(rows) if row is None]
    with progress_bar(len(cells), "Sweep", unit="run", progress=progress) as bar:
        bar.update(len(cells) - len(missing))
        work = [cells[at].measure for at in missing]
        for done, row in results_of(work, processes=processes):
            at = missing[done]
            rows[at] = row
            if place is not None:
                cells[at].keep(place, row)
            bar.update()
    return [row for row in rows if row is not None]
