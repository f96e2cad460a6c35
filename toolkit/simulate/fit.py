"""Fit the duration of a step to a recorded run: one linear form for batches of any mixture.

    t = a + b T + c sum q(k + q/2) + d sum k + e n

T tokens go through the linear layers; the first sum is over the prompts' chunks, of q tokens behind
k others; the second over the decodes, which read k keys each; n sequences take part. The terms are
those of the fits that come with DistServe (Zhong et al., OSDI 2024), for prompts and decodes in one
step. Coefficients are not negative, and found by least squares on the relative error. An error
counts in parts of what the fit itself expects (some rounds of weighting): in parts of what was
measured a slow step would count less than a fast one, and the mean would come out low.

A step's duration is taken from its start to the next step's, where work was left; so choosing,
sampling, sending and gaps of the host are in it, and a simulation needs no other term for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from toolkit.errors import RecordError
from toolkit.record import Record
from toolkit.simulate.cost import CostModel
from toolkit.simulate.work import StepWork

__all__ = ["FittedCost", "fit", "predicted_steps", "step_periods"]

Array: TypeAlias = npt.NDArray[np.float64]

# What is multiplied by each coefficient: a column of the features, its unit, its meaning.
TERMS = (
    ("step", "s/step", "every step"),
    ("num_tokens", "s/token", "a token through the linear layers"),
    ("prefill_attention", "s/pair", "a query and a key of a prompt's chunk"),
    ("decode_context", "s/key", "a key that a decode reads"),
    ("num_seqs", "s/sequence", "a sequence in the batch"),
)
_NUM_ROUNDS = 5  # of weighting; the coefficients move by less than 0.1 % after three
_NUM_FOLDS = 5
MIN_STEPS = 20  # four per coefficient
_USELESS_ERROR = 0.5  # of a step: what is predicted may be twice what it is


@dataclass(frozen=True, slots=True)
class FittedCost:
    """A cost model: seconds of a step, from the coefficients of `TERMS`.

    ``held_out_error`` is the mean relative error on steps that the fit did not see, in parts: the
    run is cut into five stretches of time, and each is predicted from the other four.

    >>> cost = FittedCost((0.01, 0.001, 0.0, 0.0, 0.0), 100, 0.05, "an example")
    >>> cost(StepWork(0, 2, 10, 9, 1, 50.0, 40.0, 9, 0, 0))
    0.02
    """

    coefficients: tuple[float, float, float, float, float]
    num_steps: int
    held_out_error: float | None
    origin: str
    # Of the time of the steps that it was fitted to, the part of each term.
    shares: tuple[float, ...] = ()

    def __call__(self, work: StepWork) -> float:
        """Return the seconds that a step takes."""
        step, token, pair, key, sequence = self.coefficients
        return (
            step
            + token * work.num_tokens
            + pair * work.prefill_attention
            + key * work.decode_context
            + sequence * work.num_seqs
        )

    @property
    def table(self) -> pd.DataFrame:
        """The coefficients: a row per term, with unit, meaning and its share of the time."""
        frame = pd.DataFrame(TERMS, columns=["term", "unit", "of"]).set_index("term")
        frame.insert(0, "coefficient", self.coefficients)
        frame["share"] = self.shares if self.shares else np.nan
        return frame

    def __repr__(self) -> str:
        error = self.held_out_error
        told = "not validated" if error is None else f"{error:.1%} mean relative error, held out"
        table = self.table.to_string(float_format=_short)
        return f"FittedCost({self.origin}; {self.num_steps} steps, {told}{self._warning})\n{table}"

    def _repr_html_(self) -> str:
        first, *_ = repr(self).split("\n")
        return f"<p>{first}</p>{self.table.to_html(float_format=_short)}"

    @property
    def _warning(self) -> str:
        """What is to be said of a fit that knows too little."""
        if self.held_out_error is None or self.held_out_error < _USELESS_ERROR:
            return ""
        return ": of no use for predictions; was the machine busy with other things?"


def fit(
    record: Record | Sequence[Record], *, start_step: int = 0, end_step: int | None = None
) -> FittedCost:
    """Fit a cost model to the steps [start_step, end_step) of a recorded run, or of several.

    Raises:
        RecordError: a record has no chunks (its level is "requests"), or there are too few steps.
    """
    records = [record] if isinstance(record, Record) else list(record)
    table = pd.concat([_features(each) for each in records], ignore_index=True)
    steps = table["step_number"]
    table = table[(steps >= start_step) & (steps < (np.inf if end_step is None else end_step))]
    if len(table) < MIN_STEPS:
        raise RecordError(
            f"{len(table)} recorded steps with their chunks are too few for a fit, which takes "
            f"{MIN_STEPS} at least and 60 to be of use: record more"
        )
    features = table[[name for name, *_ in TERMS]].to_numpy(np.float64)
    seconds = table["period_s"].to_numpy(np.float64)
    coefficients = _solve(features, seconds)
    parts = (features * coefficients).sum(axis=0)
    return FittedCost(
        coefficients=tuple(coefficients.tolist()),
        num_steps=len(table),
        held_out_error=_cross_validate(features, seconds),
        origin=f"fitted to {_name(records[0])}",
        shares=tuple((parts / parts.sum()).tolist()),
    )


def predicted_steps(record: Record, cost_model: CostModel) -> pd.DataFrame:
    """Return a row per recorded step: ``step``, ``measured_s``, and what a cost model says of it.

    Raises:
        RecordError: the record has no chunks.
    """
    table = _features(record).rename(columns={"step": "ones"})
    table = table.rename(columns={"step_number": "step"}).assign(num_copied_blocks=0)
    works = map(StepWork._make, table[list(StepWork._fields)].itertuples(index=False))
    return pd.DataFrame(
        {
            "step": table["step"],
            "measured_s": table["period_s"],
            "predicted_s": [cost_model(work) for work in works],
        }
    ).reset_index(drop=True)


def step_periods(record: Record) -> pd.Series[Any]:
    """Return by step number how long a step took, until the next one could begin.

    From its start to the next step's start if it left anybody unfinished and nobody paused the
    engine; else its own duration.
    """
    steps = record.steps
    starts = steps["start_s"].to_numpy(np.float64)
    periods = steps["duration_s"].to_numpy(np.float64, copy=True)
    if len(steps) > 1:
        left = steps["num_running"] + steps["num_waiting"] - steps["num_finished"]
        follows = np.diff(steps["step"].to_numpy()) == 1
        goes_on = (left.to_numpy()[:-1] > 0) & follows & ~_is_paused(record, starts)
        periods[:-1][goes_on] = np.diff(starts)[goes_on]
    return pd.Series(periods, index=steps["step"].to_numpy(), name="period_s")


def _is_paused(record: Record, starts: Array) -> npt.NDArray[np.bool_]:
    """Return for each step but the last whether somebody paused the engine before the next."""
    events = record.events
    paused_s = events.loc[events["kind"] == "paused", "time_s"].to_numpy(np.float64)
    places = np.searchsorted(starts, paused_s, side="right") - 1
    found: npt.NDArray[np.bool_] = np.zeros(max(0, len(starts) - 1), dtype=np.bool_)
    found[places[(places >= 0) & (places < len(found))]] = True
    return found


def _features(record: Record) -> pd.DataFrame:
    """Return a row per step that computed something: its work, as `StepWork` names it, and period.

    How many blocks it copied is not recorded.
    """
    chunks = record.chunks
    if not len(chunks):
        raise RecordError(
            "this record has no chunks, from which a step's work is known: set record.level to "
            '"tokens" (the default) before the run'
        )
    length = (chunks["end"] - chunks["start"]).to_numpy(np.float64)
    before = chunks["start"].to_numpy(np.float64)
    is_decode = (length == 1) & _samples(chunks, record.tokens)
    pairs = length * (before + length / 2)
    parts = pd.DataFrame(
        {
            "step_number": chunks["step"],
            "num_seqs": 1.0,
            "num_tokens": length,
            "num_prompt_tokens": np.where(is_decode, 0.0, length),
            "num_decodes": np.where(is_decode, 1.0, 0.0),
            "attention_work": pairs,
            "prefill_attention": np.where(is_decode, 0.0, pairs),
            "decode_context": np.where(is_decode, before, 0.0),
            "prefill_context": np.where(is_decode, 0.0, before),
        }
    )
    table = parts.groupby("step_number", as_index=False, sort=True).sum()
    table["step"] = 1.0
    table["period_s"] = table["step_number"].map(step_periods(record))
    return table[table["period_s"] > 0]  # a step whose row was dropped as too old has none


def _samples(chunks: pd.DataFrame, tokens: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for each chunk whether a token was sampled from its result."""
    keys = ["step", "request_id"]
    sampled = tokens[keys].drop_duplicates()
    merged = chunks[keys].merge(sampled, how="left", on=keys, indicator=True)
    return (merged["_merge"] == "both").to_numpy()


def _solve(features: Array, seconds: Array) -> Array:
    """Return the coefficients, none below 0, of the least relative error."""
    from scipy.optimize import nnls  # half a second that others need not wait

    expected = seconds
    for _ in range(_NUM_ROUNDS):
        rows = features / expected[:, None]
        scale = np.sqrt((rows**2).sum(axis=0))
        scale[scale == 0] = 1.0  # a term that never occurs: its coefficient comes out as 0
        scaled, _ = nnls(rows / scale, seconds / expected)
        coefficients: Array = scaled / scale
        # Where the fit says nothing at all, the measured value stands in.
        predicted = features @ coefficients
        expected = np.where(predicted > 0, predicted, seconds)
    return coefficients


def _cross_validate(features: Array, seconds: Array) -> float:
    """Return the mean relative error on stretches of the run that were left out of the fit."""
    errors = []
    for fold in np.array_split(np.arange(len(seconds)), _NUM_FOLDS):
        kept: npt.NDArray[np.bool_] = np.ones(len(seconds), dtype=np.bool_)
        kept[fold] = False
        predicted = features[fold] @ _solve(features[kept], seconds[kept])
        errors.append(np.abs(predicted - seconds[fold]) / seconds[fold])
    return float(np.concatenate(errors).mean())


def _short(number: float) -> str:
    return f"{number:.3g}"


def _name(record: Record) -> str:
    """Say what was recorded, for the origin of the coefficients."""
    told = record.environment
    model, device = told.get("model", "a run without a model"), told.get("device", "")
    return " on ".join(filter(None, (str(model), str(device), told.get("machine", ""))))
