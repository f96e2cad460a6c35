"""Claims of papers as data: what was said, how near one has to come, and the verdict on a number.

Tolerances stand in ``claims.table`` and were set before anything was measured. A claim that is not
reproduced is reported as such, with the reason: no tolerance is widened to pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.errors import InvalidConfig

__all__ = ["KINDS", "NOT_REPRODUCED", "REPRODUCED", "Claim", "Spread", "Verdict"]

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
KINDS = ("exact", "ratio", "shape")


class Spread(NamedTuple):
    """How a number that was measured with several seeds, and whose mean is judged, scatters."""

    num_seeds: int
    lowest: float
    highest: float
    error: float  # half the width of the mean's 95 % interval, NaN with one seed


class Verdict(NamedTuple):
    """What is to be said of one claim; ``ratio`` is measured / claimed, NaN without a measure.

    ``is_within_noise``: an end of what is allowed lies in the 95 % interval of the mean, so that
    other seeds may turn the verdict.
    """

    verdict: str
    ratio: float
    reason: str
    is_within_noise: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One number of a paper, or a range of numbers from ``value`` to ``high``.

    ``kind`` says what must hold of the measured number:

    - "exact": it is at most ``tolerance`` away, in the quantity's own unit;
    - "ratio": it is at most the share ``tolerance`` away (0.15: within 15 %);
    - "shape": it is at least ``value``, and at most ``high`` if there is one. The paper's order of
      several systems is such a claim: 1 when the measured order is the same, else 0.

    >>> claim = Claim("batch", "vLLM", "13", "requests", 30.42, 0.15, "ratio", "arXiv:2309.06180")
    >>> claim.judge(33.4).verdict, claim.judge(33.4).reason
    ('reproduced', '9.8 % above')
    >>> claim.judge(22.6).reason
    '25.7 % below, and 15 % is allowed'
    """

    id: str
    paper: str
    figure: str
    quantity: str
    value: float
    tolerance: float
    kind: str
    source: str
    is_simulated: bool = True  # needs no model and no clock of this machine
    high: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidConfig(f"claim {self.id}: kind={self.kind!r} is not one of {KINDS}")
        if self.tolerance < 0 or (self.kind == "shape" and self.tolerance):
            raise InvalidConfig(
                f"claim {self.id}: tolerance={self.tolerance} must be 0 or more, and 0 for a shape"
            )
        if self.high is not None and self.high < self.value:
            raise InvalidConfig(f"claim {self.id}: high={self.high} is below value={self.value}")

    @property
    def claimed(self) -> str:
        """The paper's figure in words: "30.42", "1.7 to 2.7", "at least 3"."""
        if self.high is not None:
            return f"{self.value:g} to {self.high:g}" if self.value else f"at most {self.high:g}"
        return f"at least {self.value:g}" if self.kind == "shape" else f"{self.value:g}"

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest number that reproduce the claim."""
        high = self.value if self.high is None else self.high
        if self.kind == "shape":
            return self.value, math.inf if self.high is None else self.high
        if self.kind == "exact":
            return self.value - self.tolerance, high + self.tolerance
        return self.value * (1 - self.tolerance), high * (1 + self.tolerance)

    def judge(
        self, measured: float | None, reason: str = "", spread: Spread | None = None
    ) -> Verdict:
        """Return the verdict on a measured number.

        Args:
            measured: None or NaN where nothing was measured, which reproduces nothing.
            reason: What the experiment says about it, added to how far the number is off.
            spread: Of the seeds whose mean it is; None where it is no mean of seeds.
        """
        if measured is None or math.isnan(measured):
            return Verdict(
                NOT_REPRODUCED, math.nan, "not measured" + (f": {reason}" if reason else "")
            )
        low, high = self.bounds
        # What a difference of decimal fractions loses in the last place is no miss.
        slack = 1e-9 * max(1.0, abs(self.value))
        holds = low - slack <= measured <= high + slack
        nearest = min(max(measured, self.value), self.value if self.high is None else self.high)
        if self.kind == "shape" and self.high is None:
            nearest = self.value
        ratio = measured / nearest if nearest else math.nan
        told = self._told(measured, nearest, holds)
        near = None if spread is None else self._bound_within(measured, spread.error)
        scatter = "" if spread is None else _scatter_told(spread, near)
        said = "; ".join(part for part in (told, scatter, reason) if part)
        verdict = REPRODUCED if holds else NOT_REPRODUCED
        return Verdict(verdict, ratio, said, is_within_noise=near is not None)

    def _bound_within(self, measured: float, error: float) -> float | None:
        """Return the nearer end of what is allowed, if it is less than an error away."""
        nearest = min(self.bounds, key=lambda bound: abs(measured - bound))
        return nearest if abs(measured - nearest) < error else None

    def _told(self, measured: float, nearest: float, holds: bool) -> str:
        """Say how far a number is from the nearest one that was claimed, and what is allowed."""
        if self.kind == "shape":
            return "" if holds else f"claimed: {self.claimed}"
        away = abs(measured - nearest)
        side = "above" if measured > nearest else "below"
        if self.kind == "exact":
            distance, allowed = f"{away:.3g}", f"{self.tolerance:g}"
        else:
            distance, allowed = f"{100 * away / abs(nearest):.1f} %", f"{100 * self.tolerance:g} %"
        told = f"{distance} {side}" if away > 1e-9 * max(1.0, abs(nearest)) else ""
        return told if holds else f"{told}, and {allowed} is allowed"


def _scatter_told(spread: Spread, near: float | None) -> str:
    """Say of how many seeds a number is, how they scatter, and whether that may turn a verdict."""
    if spread.num_seeds == 1:
        return "one seed, so its noise is not known"
    told = f"mean of {spread.num_seeds} seeds, {spread.lowest:.4g} to {spread.highest:.4g}"
    if near is None:
        return told
    return f"{told}; the bound {near:.4g} is within the mean's noise, ± {spread.error:.2g}"
