"""The table of verdicts: run the catalogue's experiments, and judge every claim by its measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import EXPERIMENTS, Result, find
from toolkit.experiments.catalogue.basis import basis
from toolkit.experiments.catalogue.result import check_size
from toolkit.experiments.claims.claim import REPRODUCED, Claim, Spread
from toolkit.experiments.claims.table import CLAIMS, find_claim
from toolkit.experiments.intervals import half_width
from toolkit.html_table import rows_html
from toolkit.simulate.progress import progress_bar

__all__ = ["VerdictTable", "run_experiment", "verdict_table", "verdicts"]

COLUMNS = (
    "id paper figure quantity claimed high measured error num_seeds ratio tolerance kind "
    "is_simulated experiment verdict is_within_noise reason"
).split()


class VerdictTable(pd.DataFrame):
    """A row per claim; a plain DataFrame in all but how a notebook shows it."""

    def summary(self) -> str:
        """Return in one line how many claims hold."""
        measured = self[self["measured"].notna()]
        num_good = int((measured["verdict"] == REPRODUCED).sum())
        num_missing = len(self) - len(measured)
        missing = f"; {num_missing} not measured" if num_missing else ""
        num_close = int(measured["is_within_noise"].sum())
        close = f"; {num_close} within noise of what is allowed" if num_close else ""
        num_single = int((measured["num_seeds"] == 1).sum())
        single = f"; {num_single} of one seed" if num_single else ""
        return f"{num_good} of {len(measured)} measured claims reproduced{close}{single}{missing}"

    def shown(self) -> list[dict[str, str]]:
        """Return each row as texts to show: paper, figure, quantity, claimed, ..., why."""
        return [
            {
                "paper": row["paper"],
                "figure": row["figure"],
                "quantity": row["quantity"],
                "claimed": find_claim(row["id"]).claimed,
                "measured": _number(row["measured"]) + _number(row["error"], " ± "),
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


def _number(value: float, before: str = "") -> str:
    if math.isnan(value):
        return ""
    digits = 2 if before else 4
    return before + (f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.{digits}g}")


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
    measured (a mean, where there are several seeds), error (half the width of that mean's 95 %
    interval), num_seeds (0 where it is no mean of seeds), ratio, tolerance, kind, is_simulated,
    experiment, verdict ("reproduced" or "not reproduced"), is_within_noise (the interval reaches
    over the edge of what is allowed), reason. A claim that nothing measured is not reproduced, and
    its reason says why.

    Args:
        size: "quick" or "paper".
        only: Names of experiments, ids of claims, or parts of papers' names.
        folder: Keeps each experiment's result, and reads those of the same size, seed, sources of
            the toolkit and traces that are there instead of running them again.
        seed: Of every experiment; where one takes several, the first of them.
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
    """Run one experiment, or read its result where ``folder`` keeps one that still holds.

    That is one of the same size, seed and basis: the toolkit's sources and the traces at hand.
    """
    check_size(size)
    experiment = find(name)
    place = None if folder is None else Path(folder) / name.replace("-", "_")
    if place is not None and Result.is_in(place):
        kept = Result.load(place)
        if (kept.size, kept.seed, kept.basis) == (size, seed, basis()):
            return kept
    result = experiment.run(size, progress=progress, seed=seed)
    if place is not None:
        result.save(place)
    return result


def verdict_table(results: Iterable[Result], claims: Iterable[Claim] | None = None) -> VerdictTable:
    """Judge claims by results that are there already; columns as ``verdicts`` has them.

    Without ``claims``: those that the results' experiments are there to measure.
    """
    owners = {
        claim_id: result
        for result in results
        for claim_id in (*find(result.name).CLAIMS, *result.measured)
    }
    if claims is None:
        claims = [claim for claim in CLAIMS if claim.id in owners]
    return VerdictTable([_row(claim, owners.get(claim.id)) for claim in claims], columns=COLUMNS)


def _row(claim: Claim, result: Result | None) -> tuple[Any, ...]:
    measured, spread, reason = None, None, "no experiment that ran measures it"
    if result is not None:
        measured, reason = result.measured.get(claim.id), result.reasons.get(claim.id, "")
        spread = _spread_of(result.samples.get(claim.id, ()))
    verdict = claim.judge(measured, reason, spread)
    return (
        claim.id,
        claim.paper,
        claim.figure,
        claim.quantity,
        float(claim.value),
        math.nan if claim.high is None else claim.high,
        math.nan if measured is None else float(measured),
        math.nan if spread is None else spread.error,
        0 if spread is None else spread.num_seeds,
        verdict.ratio,
        claim.tolerance,
        claim.kind,
        claim.is_simulated,
        "" if result is None else result.name,
        verdict.verdict,
        verdict.is_within_noise,
        verdict.reason,
    )


def _spread_of(samples: Sequence[float]) -> Spread | None:
    if not samples:
        return None
    lowest, highest = min(samples), max(samples)
    # What sums lose in the last place is no noise.
    is_one = math.isclose(lowest, highest, rel_tol=1e-9) and len(samples) > 1
    return Spread(len(samples), lowest, highest, 0.0 if is_one else half_width(samples))


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
