"""The table of verdicts: run the catalogue's experiments, and judge every claim by its measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import EXPERIMENTS, Result, find
from toolkit.experiments.catalogue.result import check_size
from toolkit.experiments.claims.claim import REPRODUCED, Claim
from toolkit.experiments.claims.table import CLAIMS, find_claim
from toolkit.html_table import rows_html
from toolkit.simulate.progress import progress_bar

__all__ = ["VerdictTable", "run_experiment", "verdict_table", "verdicts"]

COLUMNS = (
    "id paper figure quantity claimed high measured ratio tolerance kind is_simulated experiment "
    "verdict reason"
).split()


class VerdictTable(pd.DataFrame):
    """A row per claim; a plain DataFrame in all but how a notebook shows it."""

    def summary(self) -> str:
        """Return in one line how many claims hold."""
        measured = self[self["measured"].notna()]
        num_good = int((measured["verdict"] == REPRODUCED).sum())
        num_missing = len(self) - len(measured)
        missing = f"; {num_missing} not measured" if num_missing else ""
        return f"{num_good} of {len(measured)} measured claims reproduced{missing}"

    def shown(self) -> list[dict[str, str]]:
        """Return each row as texts to show: paper, figure, quantity, claimed, ..., why."""
        return [
            {
                "paper": row["paper"],
                "figure": row["figure"],
                "quantity": row["quantity"],
                "claimed": find_claim(row["id"]).claimed,
                "measured": _number(row["measured"]),
                "ratio": _number(row["ratio"]),
                "verdict": row["verdict"],
                "why": row["reason"],
            }
            for row in self.to_dict("records")
        ]

    def _repr_html_(self) -> str:
        if not set(COLUMNS) <= set(self.columns):  # a selection of columns
            return str(pd.DataFrame(self)._repr_html_())
        rows = self.shown()
        columns = list(rows[0]) if rows else ["verdict"]
        return rows_html(columns, [tuple(row.values()) for row in rows], note=self.summary())


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def verdicts(
    size: str = "quick",
    only: str | Sequence[str] | None = None,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> VerdictTable:
    """Run the experiments and return a row per claim: what was claimed, measured, and the verdict.

    Columns: id, paper, figure, quantity, claimed (to high, where the paper gives a range),
    measured, ratio, tolerance, kind, is_simulated, experiment, verdict ("reproduced" or "not
    reproduced"), reason. A claim that nothing measured is not reproduced, and its reason says why.

    Args:
        size: "quick" or "paper".
        only: Names of experiments, ids of claims, or parts of papers' names.
        folder: Keeps each experiment's result, and reads those of the same size and seed that are
            there instead of running them again.
        seed: Of every experiment.
        progress: Whether to show a bar; None shows it where it takes long and somebody looks on.

    Raises:
        InvalidConfig: no such size, or nothing is called as ``only`` says.
    """
    check_size(size)
    chosen = _chosen(only)
    owners = {claim.id: name for name, module in EXPERIMENTS.items() for claim in _own(module)}
    names = dict.fromkeys(owners[claim.id] for claim in chosen if claim.id in owners)
    results = []
    with progress_bar(len(names), "Verdicts", unit="experiment", progress=progress) as bar:
        for name in names:
            results.append(run_experiment(name, size, seed=seed, folder=folder, progress=progress))
            bar.update()
    return verdict_table(results, chosen)


def run_experiment(
    name: str,
    size: str = "quick",
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> Result:
    """Run one experiment, or read its result where ``folder`` keeps one of that size and seed."""
    check_size(size)
    experiment = find(name)
    place = None if folder is None else Path(folder) / name.replace("-", "_")
    if place is not None and Result.is_in(place):
        kept = Result.load(place)
        if (kept.size, kept.seed) == (size, seed):
            return kept
    result = experiment.run(size, progress=progress, seed=seed)
    if place is not None:
        result.save(place)
    return result


def verdict_table(results: Iterable[Result], claims: Iterable[Claim] = CLAIMS) -> VerdictTable:
    """Judge claims by results that are there already; columns as ``verdicts`` has them."""
    measured: dict[str, tuple[str, float | None, str]] = {}
    for result in results:
        for claim_id in (*find(result.name).CLAIMS, *result.measured):
            value = result.measured.get(claim_id)
            measured[claim_id] = (result.name, value, result.reasons.get(claim_id, ""))
    nothing = ("", None, "no experiment that ran measures it")
    return VerdictTable(
        [_row(claim, *measured.get(claim.id, nothing)) for claim in claims], columns=COLUMNS
    )


def _row(claim: Claim, experiment: str, measured: float | None, reason: str) -> tuple[Any, ...]:
    verdict = claim.judge(measured, reason)
    return (
        claim.id,
        claim.paper,
        claim.figure,
        claim.quantity,
        float(claim.value),
        math.nan if claim.high is None else claim.high,
        math.nan if measured is None else float(measured),
        verdict.ratio,
        claim.tolerance,
        claim.kind,
        claim.is_simulated,
        experiment,
        verdict.verdict,
        verdict.reason,
    )


def _own(experiment: Any) -> list[Claim]:
    return [claim for claim in CLAIMS if claim.id in experiment.CLAIMS]


def _chosen(only: str | Sequence[str] | None) -> tuple[Claim, ...]:
    """Return the claims that are meant, in the table's order."""
    if only is None:
        return CLAIMS
    ids: set[str] = set()
    for name in [only] if isinstance(only, str) else only:
        experiment = EXPERIMENTS.get(name.replace("-", "_"))
        found = {
            claim.id
            for claim in CLAIMS
            if claim.id == name
            or name.lower() in claim.paper.lower()
            or (experiment is not None and claim.id in experiment.CLAIMS)
        }
        if not found:
            raise InvalidConfig(
                f"only={name!r} is no claim, no part of a paper's name, and no experiment with "
                f"claims; experiments: {', '.join(EXPERIMENTS)}"
            )
        ids |= found
    return tuple(claim for claim in CLAIMS if claim.id in ids)
