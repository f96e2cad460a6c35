"""The table of verdicts: run the catalogue's experiments, and judge every claim by its measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import EXPERIMENTS, Result, find
from toolkit.experiments.catalogue.basis import basis
from toolkit.experiments.catalogue.result import check_size
from toolkit.experiments.claims.claim import REPRODUCED, Claim, Spread
from toolkit.experiments.claims.shown import Shown, shown, shown_html, shown_text
from toolkit.experiments.claims.table import CLAIMS, find_claim
from toolkit.experiments.intervals import half_width
from toolkit.simulate.progress import progress_bar

__all__ = ["VerdictTable", "run_experiment", "verdict_table", "verdicts"]

COLUMNS = (
    "id paper figure quantity unit claimed high tolerance kind measured error num_seeds ratio off "
    "is_simulated experiment size verdict is_within_noise reason remark"
).split()


class VerdictTable(pd.DataFrame):
    """A row per claim; a plain DataFrame in all but how it is shown."""

    def summary(self) -> str:
        """Return in one line how many claims hold."""
        measured = self[self["measured"].notna()]
        if not len(measured):
            return f"{len(self)} claims, none of them measured"
        is_given = np.array([find_claim(name).is_arithmetic for name in measured["id"]])
        counts = [
            (int(measured["is_within_noise"].sum()), "could turn with other seeds"),
            (int((measured["num_seeds"] == 1).sum()), "from a single seed"),
            (len(self) - len(measured), "not measured"),
        ]
        told = [_reproduced(measured[~is_given], "measured claims")]
        if is_given.any():
            told.append(_reproduced(measured[is_given], "arithmetic claims"))
        told += [f"{num} {words}" for num, words in counts if num]
        return "; ".join(filter(None, told))

    def shown(self) -> Shown:
        """Return the rows in words, and what is to stand below them."""
        return shown(self.to_dict("records"))

    def __repr__(self) -> str:
        if not self._is_whole:
            return repr(pd.DataFrame(self))
        return shown_text(self.shown(), self.summary())

    def _repr_html_(self) -> str:
        if not self._is_whole:
            return str(pd.DataFrame(self)._repr_html_())
        return shown_html(self.shown(), self.summary())

    @property
    def _is_whole(self) -> bool:
        """Whether it has rows, and all columns."""
        return len(self) > 0 and set(COLUMNS) <= set(self.columns)


def _reproduced(rows: pd.DataFrame, of: str) -> str:
    """Say how many rows are reproduced; "" if there are none."""
    num_good = int((rows["verdict"] == REPRODUCED).sum())
    return f"{num_good} of {len(rows)} {of} reproduced" if len(rows) else ""


def verdicts(
    size: str = "quick",
    only: str | Sequence[str] | None = None,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> VerdictTable:
    """Run the experiments and return a row per claim: what was claimed, measured, and the verdict.

    Columns: id, paper, figure, quantity, unit, claimed (to high, where the paper gives a range),
    tolerance, kind, measured (a mean, where there are several seeds), error (half the width of that
    mean's 95 % interval), num_seeds (0 where it is no mean of seeds), ratio, off (how far from what
    was claimed), is_simulated, experiment, size, verdict ("reproduced" or "not reproduced"),
    is_within_noise (the interval reaches over the edge of what is allowed), reason, remark (what
    of the reason the experiment says). A claim that nothing measured has no number in ``measured``
    and counts as not reproduced; the table that is shown says "not measured".

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


def _row(claim: Claim, result: Result | None) -> dict[str, Any]:
    measured, spread, reason = None, None, "no experiment that ran measures it"
    if result is not None:
        measured, reason = result.measured.get(claim.id), result.reasons.get(claim.id, "")
        spread = _spread_of(result.samples.get(claim.id, ()))
    verdict = claim.judge(measured, reason, spread)
    return {
        "id": claim.id,
        "paper": claim.paper,
        "figure": claim.figure,
        "quantity": claim.quantity,
        "unit": claim.unit,
        "claimed": float(claim.value),
        "high": math.nan if claim.high is None else claim.high,
        "tolerance": claim.tolerance,
        "kind": claim.kind,
        "measured": math.nan if measured is None else float(measured),
        "error": math.nan if spread is None else spread.error,
        "num_seeds": 0 if spread is None else spread.num_seeds,
        "ratio": verdict.ratio,
        "off": verdict.off,
        "is_simulated": claim.is_simulated,
        "experiment": "" if result is None else result.name,
        "size": "" if result is None else result.size,
        "verdict": verdict.verdict,
        "is_within_noise": verdict.is_within_noise,
        "reason": verdict.reason,
        "remark": reason,
    }


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
