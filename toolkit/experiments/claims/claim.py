"""Claims of papers as data: what was said, how near one has to come, and the verdict on a number.

Tolerances stand in ``claims.table`` and were set before anything was measured. A claim that is not
reproduced is reported as such, with the reason: no tolerance is widened to pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.errors import InvalidConfig

__all__ = ["HOLDS", "KINDS", "NOT_REPRODUCED", "REPRODUCED", "Claim", "Spread", "Verdict"]

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
KINDS = ("exact", "ratio", "shape")
HOLDS = "holds"  # the unit of what is true (1) or not (0)


class Spread(NamedTuple):
    """How a number that was measured with several seeds, and whose mean is judged, scatters."""

    num_seeds: int
    lowest: float
    highest: float
    error: float  # half the width of the mean's 95 % interval, NaN with one seed


class Verdict(NamedTuple):
    """What is to be said of one claim; ``ratio`` is measured / claimed, NaN without a measure.

    ``off`` says by how much the number misses the nearest one that was claimed; "" if it does not.
    ``is_within_noise``: an end of what is allowed lies in the 95 % interval of the mean, so that
    other seeds may turn the verdict.
    """

    verdict: str
    ratio: float
    off: str
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

    ``unit`` is written behind each of its numbers.

    >>> claim = Claim("batch", "vLLM", "13", "batched", 30.42, 0.15, "ratio", "arXiv:2309.06180")
    >>> claim.judge(33.4).verdict, claim.judge(33.4).off
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
    unit: str = ""
    is_arithmetic: bool = False  # it follows from numbers that are given, whatever serves

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
        """The paper's figure in words: "30.42 requests", "1.7 to 2.7 ×", "at least 3 ×"."""
        if self.high is not None:
            high = self.told(self.high)
            return f"{_number(self.value)} to {high}" if self.value else f"at most {high}"
        if self.unit == HOLDS:
            return "to hold"
        return ("at least " if self.kind == "shape" else "") + self.told(self.value)

    @property
    def allowed(self) -> str:
        """The tolerance in words: "± 15 %", "0.85 to 1.15 ×", "± 0.3 points", "none"."""
        if not self.tolerance:
            return "none"
        if self.kind == "ratio" and self.unit == "%":  # "± 15 %" might be of points
            return f"{1 - self.tolerance:g} to {1 + self.tolerance:g} ×"
        if self.kind == "ratio":
            return f"± {100 * self.tolerance:g} %"
        return f"± {self._apart(self.tolerance)}"

    def told(self, value: float, *, error: float = 0.0) -> str:
        """Return a number of this claim with its unit, to the digits that its error leaves.

        As "17.9 ± 2.4 %".
        """
        if self.unit == HOLDS:
            return HOLDS if value == 1 else "does not hold"
        if not error > 0:
            return f"{_number(value)} {self.unit}".rstrip()
        decimals = max(0, 1 - math.floor(math.log10(error)))  # two digits of the error
        return f"{value:,.{decimals}f} ± {error:,.{decimals}f} {self.unit}".rstrip()

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
            said = "not measured" + (f": {reason}" if reason else "")
            return Verdict(NOT_REPRODUCED, math.nan, "", said)
        low, high = self.bounds
        # What a difference of decimal fractions loses in the last place is no miss.
        slack = 1e-9 * max(1.0, abs(self.value))
        holds = low - slack <= measured <= high + slack
        nearest = self._nearest(measured)
        off = self._off(measured, nearest)
        missed = "" if holds else self._missed(off)
        near = None if spread is None else self._bound_within(measured, spread.error)
        scatter = "" if spread is None else _scatter_told(spread, near)
        said = "; ".join(part for part in (missed or off, scatter, reason) if part)
        return Verdict(
            REPRODUCED if holds else NOT_REPRODUCED,
            measured / nearest if nearest else math.nan,
            off,
            said,
            is_within_noise=near is not None,
        )

    def _nearest(self, measured: float) -> float:
        """Return the number that was claimed which is the nearest to the one that was measured."""
        if self.kind == "shape" and self.high is None:
            return self.value
        return min(max(measured, self.value), self.value if self.high is None else self.high)

    def _bound_within(self, measured: float, error: float) -> float | None:
        """Return the nearer end of what is allowed, if it is less than an error away."""
        nearest = min(self.bounds, key=lambda bound: abs(measured - bound))
        return nearest if abs(measured - nearest) < error else None

    def _off(self, measured: float, nearest: float) -> str:
        """Say how far a number is from what was claimed; "" if it is just that."""
        away = abs(measured - nearest)
        is_beyond = self.kind == "shape" and self.high is None and measured > nearest
        if self.unit == HOLDS or is_beyond or away <= 1e-9 * max(1.0, abs(nearest)):
            return ""
        side = "above" if measured > nearest else "below"
        if self.kind == "ratio" and self.unit == "%":
            return f"{measured / nearest:.3g} × the claim"
        if self.kind == "exact" or self.unit == "%" or not nearest:
            return f"{self._apart(away)} {side}"
        return f"{100 * away / abs(nearest):,.1f} % {side}"

    def _apart(self, difference: float) -> str:
        """Return a difference of two of its numbers with its unit; per cents differ by points."""
        number = f"{difference:,.0f}" if difference >= 1_000 else f"{difference:.3g}"
        return f"{number} {'points' if self.unit == '%' else self.unit}".rstrip()

    def _missed(self, off: str) -> str:
        """Say of a number that is too far off how far, and what would have been near enough."""
        if self.kind == "shape":
            return "; ".join(filter(None, [off, f"claimed: {self.claimed}"]))
        allowed = self.allowed.removeprefix("± ")
        return f"{off}, and {allowed} {'are' if allowed.endswith('points') else 'is'} allowed"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _scatter_told(spread: Spread, near: float | None) -> str:
    """Say of how many seeds a number is, how they scatter, and whether that may turn a verdict."""
    if spread.num_seeds == 1:
        return "one seed, so its noise is not known"
    told = f"mean of {spread.num_seeds} seeds, {spread.lowest:.4g} to {spread.highest:.4g}"
    if near is None:
        return told
    return f"{told}; the bound {near:.4g} is within the mean's noise, ± {spread.error:.2g}"
