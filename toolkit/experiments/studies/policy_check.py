"""Try a scheduling policy before it is let loose: who waits, what idles, what breaks, at what cost.

Every load is simulated twice, under the policy and under ``fcfs``, with the engine's and the
cache's invariants checked after every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolkit.experiments.studies.cells import label_of
from toolkit.experiments.studies.trials import LOADS, Trial, first_look, make_loads, try_policy
from toolkit.html_table import rows_html
from toolkit.simulate import Machine
from toolkit.simulate.progress import progress_bar

__all__ = ["PolicyCheck", "check_policy"]

FINE, LOOK, BAD = "fine", "look at it", "bad"
# What each measure may be before it is worth a look, and before it is bad.
_WAIT_RATIO = (3.0, 10.0)  # longest wait, in those of fcfs
_MEAN_WAIT_RATIO = (1.2, 3.0)  # mean wait, likewise
_IDLE_SHARE = (0.02, 0.2)  # of the tokens that steps could have computed, kept back by the policy
_RECOMPUTED_SHARE = (0.05, 0.25)  # of computed tokens
_STEP_US = (1_000.0, 5_000.0)  # more than fcfs: 5 % and 25 % of a step of 20 ms
_BASE = "fcfs"
# How long a load may take, in times of fcfs: a policy that serves one by one would take for ever.
_PATIENCE = 3.0


@dataclass(frozen=True, slots=True, repr=False)
class PolicyCheck:
    """What ``check_policy`` found: ``table`` has a row per question.

    Columns: question, load, value, fcfs (the same of ``fcfs``), unit, verdict ("fine", "look at
    it" or "bad"), what (the verdict in words). ``is_fine`` says whether all of them are fine.
    """

    policy: str
    table: pd.DataFrame

    @property
    def is_fine(self) -> bool:
        """Whether nothing is left to look at."""
        return bool((self.table["verdict"] == FINE).all())

    def __repr__(self) -> str:
        lines = [
            f"  {row.verdict:<11}{row.question:<24}{_told(row.value, row.unit):>12}"
            f"  (fcfs: {_told(row.fcfs, row.unit)})  {row.what}"
            for row in self.table.itertuples()
        ]
        return "\n".join([f"Policy {self.policy}: {self._summary()}", *lines])

    def _repr_html_(self) -> str:
        rows = [
            (
                row.question,
                row.load,
                _told(row.value, row.unit),
                _told(row.fcfs, row.unit),
                row.verdict,
                row.what,
            )
            for row in self.table.itertuples()
        ]
        columns = ["question", "load", self.policy, _BASE, "verdict", "in words"]
        return rows_html(columns, rows, note=self._summary())

    def _summary(self) -> str:
        counts = self.table["verdict"].value_counts()
        return ", ".join(f"{counts[word]} {word}" for word in (FINE, LOOK, BAD) if word in counts)


def _told(value: float, unit: str) -> str:
    if np.isnan(value):
        return "-"
    if unit == "share":
        return f"{100 * value:.2g} %"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def check_policy(
    policy: Any, *, machine: Machine | None = None, seed: int = 0, progress: bool | None = None
) -> PolicyCheck:
    """Simulate a policy under three loads, next to ``fcfs``, and say what is to be looked at.

    A few requests come first: one whose methods raise there, or answer without sense, is told so at
    once, and nothing else is measured.

    - starvation: the longest wait for a first token, in those of ``fcfs``, where short requests
      keep coming, a tenth more than the machine serves, and a few long ones are among them;
    - mean wait: in a long line, which grows where short requests stand behind long ones;
    - idle budget: tokens that a step had room for while somebody waited whom the policy held back;
    - recomputed: tokens computed again after preemptions, where the cache is too small;
    - invariants: what scheduler and cache promise, checked after each step;
    - overruled: kinds of answers that the scheduler could not follow;
    - cost: process time of a whole step, with hundreds of requests in line.

    An object is used for all loads, with what it remembers; of a class each gets a new one.

    Args:
        policy: A name, a function, a class or an object, as an engine takes it.
        machine: What is simulated; by default OPT-13B on an A100 with 40 GB.
        seed: Of the loads.
        progress: Whether to show a bar; None shows it where it takes long and somebody looks on.
    """
    machine = machine or Machine("opt-13b", "A100-40GB")
    name = str(label_of(policy))
    first = try_policy(machine, first_look(seed), policy)
    loads = [] if _is_wrong(first) else make_loads(machine, seed)
    trials = dict.fromkeys(LOADS, (Trial(), Trial()))
    seen = [first]
    with progress_bar(2 * len(loads), f"Checking {name}", unit="trial", progress=progress) as bar:
        for load in loads:
            base = try_policy(machine, load, _BASE)
            bar.update()
            tried = try_policy(machine, load, policy, until_s=_PATIENCE * base.duration_s)
            trials[load.name] = tried, base
            seen.append(tried)
            bar.update()
    rows = [
        _longest_wait(*trials["overload"]),
        _mean_wait(*trials["line"]),
        _idle(*trials["line"]),
        _recomputed(*trials["tight"]),
        _invariants(seen),
        _overruled(seen),
        _cost(*trials["line"]),
    ]
    columns = ["question", "load", "value", "fcfs", "unit", "verdict", "what"]
    return PolicyCheck(name, pd.DataFrame(rows, columns=columns))


Row = tuple[str, str, float, float, str, str, str]


def _graded(
    value: float, limits: tuple[float, float], told: str, words: tuple[str, str]
) -> tuple[str, str]:
    """Return the verdict on a measure, the larger the worse, and what it means.

    ``told`` has places for the measure and for what is fine; ``words`` are for what is not.
    """
    if np.isnan(value):
        return BAD, "it broke before this could be measured"
    place = int(value > limits[0]) + int(value > limits[1])
    measured = told.format(value, limits[0])
    return (FINE, LOOK, BAD)[place], f"{measured}; {words[place - 1]}" if place else measured


def _longest_wait(tried: Trial, base: Trial) -> Row:
    value = tried.longest_wait_s
    told = "{:.2g} times that of fcfs, fine up to {:g}"
    words = "some wait long, as overtaken ones do", "somebody starves while others keep coming"
    verdict, what = _graded(value / base.longest_wait_s, _WAIT_RATIO, told, words)
    return "longest wait", "overload", value, base.longest_wait_s, "s", verdict, what


def _mean_wait(tried: Trial, base: Trial) -> Row:
    value = tried.mean_wait_s
    told = "{:.2g} times that of fcfs, fine up to {:g}"
    words = "many wait for a few", "nearly all wait for a few"
    verdict, what = _graded(value / base.mean_wait_s, _MEAN_WAIT_RATIO, told, words)
    return "mean wait", "line", value, base.mean_wait_s, "s", verdict, what


def _idle(tried: Trial, base: Trial) -> Row:
    told = "{:.1%} of what steps had room for, fine up to {:.0%}"
    words = "some steps are kept emptier", "steps stay empty beside a queue"
    verdict, what = _graded(tried.idle_share, _IDLE_SHARE, told, words)
    return "budget kept back", "line", tried.idle_share, base.idle_share, "share", verdict, what


def _recomputed(tried: Trial, base: Trial) -> Row:
    value, other = tried.recomputed_share, base.recomputed_share
    told = "{:+.1%} of the tokens beside fcfs, fine up to {:.0%}"
    words = "preemption costs some work", "much work is done twice: see victim() and admit()"
    # Some is the load's fault: what fcfs computes again too is no reason to blame a policy.
    verdict, what = _graded(value - other, _RECOMPUTED_SHARE, told, words)
    return "recomputed tokens", "tight", value, other, "share", verdict, what


def _invariants(trials: list[Trial]) -> Row:
    errors = [trial.error for trial in trials if trial.error]
    what = errors[0] if errors else "hold after every step"
    return "broken invariants", "all", len(errors), 0.0, "", BAD if errors else FINE, what


def _overruled(trials: list[Trial]) -> Row:
    told = list(dict.fromkeys(text for trial in trials for text in trial.overrules))
    verdict = BAD if any(map(_is_wrong, trials)) else LOOK if told else FINE
    what = "; ".join(told) or "every answer could be followed"
    return "kinds of overruling", "all", len(told), 0.0, "", verdict, what


def _is_wrong(trial: Trial) -> bool:
    """Whether a method raised, or answered without sense."""
    wrong = "raised", "returned no", "compare"
    return any(word in text for text in trial.overrules for word in wrong)


def _cost(tried: Trial, base: Trial) -> Row:
    told = "{:+,.0f} µs in each step beside fcfs, fine up to {:,.0f}"
    words = "costs time in each step", "costs more than many steps take"
    verdict, what = _graded(tried.step_us - base.step_us, _STEP_US, told, words)
    return "time of a step", "line", tried.step_us, base.step_us, "µs", verdict, what
