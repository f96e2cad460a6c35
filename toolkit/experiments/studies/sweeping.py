"""Run one workload over policies, rates and seeds: a tidy table, a row per run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.studies.cells import Cell, Shelf, at_rate, labelled
from toolkit.experiments.studies.pool import check_processes, results_of
from toolkit.experiments.workloads.changes import draws_alike
from toolkit.simulate.progress import progress_bar

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["sweep"]

logger = logging.getLogger(__name__)


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
        seeds: Of the workload's draws. Where they draw nothing, as of a trace, simulations run the
            first of them only: the others would be the same run again.
        over: More axes: options of ``run`` by name, with the values that each takes.
        folder: Keeps each row; what is there already is read and not run again. Rows are told
            apart by all that they depend on: code, objects' state, globals, the toolkit's version.
        processes: How many runs at a time; more than one only of simulations.
        slo: Limits by metric, for ``goodput_per_s`` and ``goodput_share``.
        warmup_s: Leaves out what was scheduled in the first seconds of each run.
        progress: Whether to show a bar; None shows it where it takes long and somebody looks on.
        options: Of every run.

    Returns:
        policy, rate, seed, the axes of ``over``, then the columns of ``measures``. In this order
        whatever was done first.

    Raises:
        KeyboardInterrupt: at once, and also where the run of a server was interrupted, whose row
            is not kept.
        InvalidConfig: an axis is empty or ambiguous; several processes for what is no simulation;
            a folder for what cannot be told from run to run.
    """
    check_processes(processes)
    is_simulation = not isinstance(on, str) and callable(getattr(on, "run", None))
    if processes > 1 and not is_simulation:
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
        for labels, variant in _variants(w, rate, _seeds(w, seeds, is_simulation=is_simulation))
        for name, chosen in policies.items()
        for at in product(*axes.values())
    ]
    return pd.DataFrame(_rows(cells, folder, processes, progress))


def _seeds(w: Workload, seeds: Any, *, is_simulation: bool) -> list[int]:
    """Return the seeds to run: of those that draw nothing, a simulation needs only the first.

    Raises:
        InvalidConfig: they are no whole numbers, or none, or one comes twice.
    """
    listed = list(seeds) if isinstance(seeds, Iterable) else []
    if not all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in listed):
        listed = []
    if not listed or len(set(listed)) < len(listed):
        raise InvalidConfig(
            f"seeds={seeds!r} must be whole numbers, one at least and none twice, as range(5)"
        )
    if len(listed) == 1 or not draws_alike(w.with_seed(listed[0]), w.with_seed(listed[1])):
        return listed
    logger.warning(
        "seeds draw nothing of %r, which asks the same at the same times with each of them: %s",
        w,
        f"one run, with seed {listed[0]}"
        if is_simulation
        else "its runs tell how much the target varies, not how much loads do",
    )
    return listed[:1] if is_simulation else listed


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
            faster = at_rate(drawn, value)
            yield {"rate": float(value), "seed": seed}, faster


def _rows(
    cells: list[Cell], folder: str | Path | None, processes: int, progress: bool | None
) -> list[dict[str, Any]]:
    """Return a row per cell, in their order; read, or run and kept."""
    shelf = None if folder is None else Shelf(Path(folder), cells)
    rows = [None if shelf is None else shelf.row(at) for at in range(len(cells))]
    missing = [at for at, row in enumerate(rows) if row is None]
    with progress_bar(len(cells), "Sweep", unit="run", progress=progress) as bar:
        bar.update(len(cells) - len(missing))
        work = [partial(_row, cells[at], at, shelf) for at in missing]
        for done, row in results_of(work, processes=processes):
            rows[missing[done]] = row
            bar.update()
    return [row for row in rows if row is not None]


def _row(cell: Cell, place: int, shelf: Shelf | None) -> dict[str, Any]:
    """Return the row of a cell, kept by whoever measured it: an interrupt then loses no row."""
    row = cell.measure()
    if shelf is not None:
        shelf.keep(place, row)
    return row
