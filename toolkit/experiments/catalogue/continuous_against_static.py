"""What it costs to let a batch end together: continuous against static batching.

Yu et al. 2022 (Orca, OSDI) schedule by iteration: whoever ends leaves, whoever waits comes in. In a
static batch places stay empty until the longest output ends. If a step takes as long whatever is in
it, the gain in throughput is E[longest of n] / E[length], which for exponential lengths is
H_n = 1 + 1/2 + ... + 1/n, and for any other is a sum over its distribution: the closed form here.
If a step of b requests takes a + c b, a gain of M in steps is one of (M + r) / (1 + r) in seconds,
where r = c n / a: what grows with the batch is paid either way.

Measured twice, on the same schedulers: on a simulated OPT-13B, over the spread of output lengths,
with steps of one length and with the real ones, which a fuller batch makes longer; and on the real
engine with the bundled model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size, means
from toolkit.experiments.engine_steps import steps_by_policy
from toolkit.experiments.gamma_outputs import GammaOutputs, closed_form, harmonic
from toolkit.experiments.plots import PAPER_COLOUR, DataFigure, figure, look, style
from toolkit.experiments.workloads.arrivals import Closed
from toolkit.experiments.workloads.workload import Workload
from toolkit.simulate import Machine, StaticBatching, progress_bar

__all__ = ["CLAIMS", "TITLE", "plot", "run"]

TITLE = "What does it cost to let a batch end together?"
CLAIMS = ("closed-form-simulated", "closed-form-engine")

_SIMULATED, _ENGINE = "OPT-13B, simulated", "bundled model, real engine"


@dataclass(frozen=True, slots=True)
class _Size:
    """How much is simulated, and how much the real engine computes."""

    cvs: tuple[float, ...]
    batch_size: int
    num_batches: int
    mean: float
    engine_batch_size: int
    engine_rounds: int
    engine_mean: float


_SIZES = {
    "quick": _Size((0.0, 0.5, 1.0, 1.5, 2.0), 32, 24, 64.0, 8, 4, 40.0),
    "paper": _Size((0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0), 32, 200, 100.0, 8, 20, 60.0),
}
_EXPONENTIAL = 1.0  # the coefficient of variation at which the closed form is H_n
_NUM_SEEDS = 3  # of the exponential lengths, whose gain is judged, on the simulated machine
_ROUND = 3  # batches that the engine serves under one policy before the other has its turn
_DRAWN_S = 20.0  # over which it is drawn how many run


def run(size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
    """Serve as many clients as fit into a batch, continuously and in static batches.

    A client asks again as soon as it is answered, so its next request waits for a place, or for the
    batch to end. A gain is the ratio of output tokens per second, or per step; continuous batching
    is measured while the batch is full, since how it empties at the end says nothing of it.

    Args:
        size: "quick" or "paper" (more and longer requests).
        progress: Whether to show a bar.
        seed: Of the lengths; of exponential ones on the simulated machine, the first of three.

    Returns:
        Tables ``gains`` (on, cv, batch size, gain in seconds and in steps, the closed form, what it
        is for the very lengths that were drawn, how much longer a step of a full batch takes than
        one of a single request, what the closed form comes to in seconds for such steps, and the
        seed) and ``running`` (policy, time in s, requests in the batch), of exponential lengths on
        the simulated machine.
    """
    check_size(size)
    extent = _SIZES[size]
    machine = Machine("opt-13b", "A100-40GB")
    gains, running = [], []
    draws = [(cv, seed) for cv in extent.cvs]
    draws += [(_EXPONENTIAL, seed + more) for more in range(1, _NUM_SEEDS)]
    runs = len(draws) + 1
    with progress_bar(runs, "Continuous against static", unit="load", progress=progress) as bar:
        for cv, drawn in sorted(draws):
            lengths = GammaOutputs(extent.mean, cv)
            w = _load(lengths, extent.batch_size, extent.num_batches, drawn)
            steps = {
                name: machine.run(
                    w.arrivals(),
                    progress=False,
                    policy=policy,
                    max_num_seqs=extent.batch_size,
                    enable_prefix_caching=False,
                ).steps
                for name, policy in _policies(extent.batch_size).items()
            }
            row = _gain(_SIMULATED, [w], lengths, extent.batch_size, steps)
            gains.append({**row, "seed": drawn})
            if (cv, drawn) == (_EXPONENTIAL, seed):
                running += [_running(name, table) for name, table in steps.items()]
            bar.update()
        lengths = GammaOutputs(extent.engine_mean, _EXPONENTIAL)
        loads = [
            _load(lengths, extent.engine_batch_size, _ROUND, seed + at)
            for at in range(extent.engine_rounds)
        ]
        size_of_batch = extent.engine_batch_size
        steps = steps_by_policy(loads, _policies(size_of_batch), size_of_batch)
        gains.append({**_gain(_ENGINE, loads, lengths, size_of_batch, steps), "seed": seed})
        bar.update()
    data = {"gains": pd.DataFrame(gains), "running": pd.concat(running, ignore_index=True)}
    samples, reasons = _samples(data["gains"]), _reasons(data["gains"])
    return Result(
        "continuous_against_static", size, data, means(samples), reasons, seed, samples=samples
    )


def _load(lengths: GammaOutputs, batch_size: int, num_batches: int, seed: int) -> Workload:
    return Workload(Closed(batch_size), lengths, num_requests=batch_size * num_batches, seed=seed)


def _policies(batch_size: int) -> dict[str, Any]:
    return {"continuous": "fcfs", "static": StaticBatching(batch_size)}


def _gain(
    on: str,
    loads: Sequence[Workload],
    lengths: GammaOutputs,
    batch_size: int,
    steps: dict[str, pd.DataFrame],
) -> dict[str, Any]:
    """Return a row of ``gains``: every request that computes in a step gets a token from it."""
    continuous, static = steps["continuous"], steps["static"]
    continuous = continuous[continuous["num_requests"] == batch_size]
    per_s, per_step = (
        [table["num_requests"].sum() / total(table) for table in (continuous, static)]
        for total in (_seconds, len)
    )
    drawn = np.concatenate([w.table["num_output_tokens"] for w in loads]).reshape(-1, batch_size)
    in_steps = float(drawn.max(axis=1).mean() / drawn.mean())
    fixed_s, each_s = _step_cost(pd.concat([continuous, static]))
    growing = each_s * batch_size / fixed_s
    return {
        "on": on,
        "cv": lengths.cv,
        "batch_size": batch_size,
        "gain": per_s[0] / per_s[1],
        "gain_in_steps": per_step[0] / per_step[1],
        "closed_form": closed_form(lengths, batch_size),
        "closed_form_of_drawn": in_steps,
        "full_to_single_step": (fixed_s + each_s * batch_size) / (fixed_s + each_s),
        "closed_form_in_s": (in_steps + growing) / (1 + growing),
    }


def _step_cost(steps: pd.DataFrame) -> tuple[float, float]:
    """Return a and c of a + c b, in s: a line through the median steps of each batch size b."""
    steps = steps[steps["num_prompt_tokens"] == 0]
    seconds = steps["duration_s"] + steps["host_gap_s"]
    medians = seconds.groupby(steps["num_requests"]).median()
    if len(medians) < 2:  # batches of one size: nothing is known of others
        return float(medians.mean()), 0.0
    each_s, fixed_s = np.polyfit(medians.index, medians, 1)
    return float(fixed_s), float(each_s)


def _seconds(steps: pd.DataFrame) -> float:
    return float((steps["duration_s"] + steps["host_gap_s"]).sum())


def _running(name: str, steps: pd.DataFrame) -> pd.DataFrame:
    """Return how many run, over the first seconds."""
    steps = steps[steps["start_s"] <= steps["start_s"].iloc[0] + _DRAWN_S]
    return pd.DataFrame(
        {"policy": name, "time_s": steps["start_s"], "num_running": steps["num_requests"]}
    )


def _samples(gains: pd.DataFrame) -> dict[str, list[float]]:
    rows = gains[gains["cv"] == _EXPONENTIAL]
    simulated, engine = rows[rows["on"] == _SIMULATED], rows[rows["on"] == _ENGINE]
    return {
        "closed-form-simulated": (
            simulated["gain"] / simulated["batch_size"].map(harmonic)
        ).tolist(),
        # Of few batches: compared with what these very lengths come to.
        "closed-form-engine": (engine["gain"] / engine["closed_form_of_drawn"]).tolist(),
    }


def _reasons(gains: pd.DataFrame) -> dict[str, str]:
    """Say, of both machines, what the closed form leaves out: steps that grow with the batch."""
    rows = gains[gains["cv"] == _EXPONENTIAL].groupby("on").mean()
    return {
        claim: f"gain in steps {row['gain_in_steps']:.2f} of {row['closed_form_of_drawn']:.2f}; "
        f"a full batch's step takes {row['full_to_single_step']:.2f} times a single request's, "
        f"which leaves {row['closed_form_in_s']:.2f} in seconds; measured, with prompts, "
        f"{row['gain']:.2f}"
        for claim, (_, row) in zip(CLAIMS, rows.loc[[_SIMULATED, _ENGINE]].iterrows(), strict=True)
    }


def plot(result: Result) -> DataFigure:
    """Draw the gain over the spread of lengths with its closed forms, and how many run."""
    gains = result.data["gains"]
    with style():
        fig = figure(width_in=7.4, height_in=3.1)
        left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
        _draw_gains(left, gains)
        _draw_running(right, result.data["running"])
        fig.data = gains
    return fig


def _draw_gains(axes: Any, gains: pd.DataFrame) -> None:
    simulated, engine = gains[gains["on"] == _SIMULATED], gains[gains["on"] == _ENGINE]
    batch_size = int(simulated["batch_size"].iloc[0])
    lines = simulated.groupby("cv")[["closed_form", "closed_form_in_s"]].mean()
    for column, dash, label in (
        ("closed_form", "-", f"closed form, batch of {batch_size}"),
        ("closed_form_in_s", ":", "the same, if fuller batches step slower"),
    ):
        axes.plot(lines.index, lines[column], dash, color=PAPER_COLOUR, label=label)
    marks = (
        (simulated, "gain_in_steps", "simulated, per step"),
        (simulated, "gain", "simulated, per second"),
        (engine, "gain", "real engine, per second"),
    )
    for number, (rows, column, label) in enumerate(marks):
        axes.plot(
            rows["cv"], rows[column], label=label, **{**look(number)._asdict(), "linestyle": "none"}
        )
    label = f"closed form of its lengths, batch of {int(engine['batch_size'].iloc[0])}"
    axes.plot(
        engine["cv"], engine["closed_form_of_drawn"], "_", color=look(2).color, ms=14, label=label
    )
    axes.set(
        xlabel="standard deviation / mean of output lengths",
        ylabel="throughput, continuous / static",
        title="Gain of continuous batching",
        ylim=(0, 1.75 * gains["closed_form"].max()),
    )
    axes.legend(loc="upper left")


def _draw_running(axes: Any, running: pd.DataFrame) -> None:
    for number, (name, rows) in enumerate(running.groupby("policy", sort=False)):
        axes.step(
            rows["time_s"], rows["num_running"], where="post", color=look(number).color, label=name
        )
    axes.set(
        xlabel="time (s)",
        ylabel="requests in the batch",
        title="Exponential lengths, simulated",
        ylim=(0, 1.25 * running["num_running"].max()),
    )
    axes.legend(loc="upper right", ncols=2)
