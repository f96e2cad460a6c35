"""A digital twin: a machine fitted to a recorded run, the run on it again, and questions to it.

    twin = simulate.twin(record)         # prints how far off it is, figure by figure
    twin.what_if(policy="shortest-first", block_size=32)
    twin.what_if(replicas=2)

The cost model is fitted to the first part of the run, and the errors are those of requests that
came after it. They are the error bars of its answers: what it gets wrong where one can look. A
question that leads far from the run (much longer prompts, far more sequences at once) goes beyond
what they cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from toolkit.engine import Engine
from toolkit.engine.entries import PolicyChosen, pristine
from toolkit.errors import InvalidParameter, RecordError
from toolkit.record import Record
from toolkit.record.summary import summarise
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.cost import CostModel, held_out_error_of, origin_of
from toolkit.simulate.fit import fit
from toolkit.simulate.fleet import Fleet
from toolkit.simulate.machine import Machine, require_count, require_options
from toolkit.simulate.recorded import recorded_arrivals
from toolkit.simulate.replay import journal_of

__all__ = ["Twin", "TwinMachine", "WhatIf", "figures", "relative_errors", "twin", "what_if"]

QUANTILES = ("mean", "p50", "p90", "p99")
RATES = ("requests_per_s", "output_tokens_per_s")


class TwinMachine(Machine):
    """The machine of a recorded run, with a cost model of its own.

    It knows how long a step takes and how many tokens fit, and no more of model and device, so it
    has no ``shape``. What is not said to ``engine()`` is as it was in the run.

    Args:
        record: Of the run.
        cost_model: Seconds of a step's work.
    """

    def __init__(self, record: Record, cost_model: CostModel) -> None:
        config = record.config
        if not config:
            raise RecordError("this record is of no engine, so there are no settings to take over")
        self.cost_model = cost_model
        self.kv_slots = config["num_blocks"] * config["block_size"]
        self.kv_origin = "as in the run"
        self.settings: dict[str, Any] = {
            "policy": _policy(record),
            "num_kv_blocks": config["num_blocks"],
            **{
                name: config[name]
                for name in (
                    "block_size",
                    "max_num_seqs",
                    "max_num_batched_tokens",
                    "max_model_len",
                    "enable_prefix_caching",
                    "seed",
                )
            },
        }
        told = record.environment
        self._model = str(told.get("model", "a recorded engine"))
        self._device = str(told.get("device", "its device"))

    @property
    def name(self) -> str:
        """What was recorded, and where."""
        return f"{self._model} on {self._device}"

    def engine(self, **options: Any) -> Engine:
        """Return an engine with the settings of the run, but for ``options`` (`Machine.engine`).

        Another ``block_size`` alone leaves the memory as large as it was.

        Raises:
            InvalidConfig: no such option, or one that makes no sense.
        """
        require_options(options)
        settings = dict(self.settings)
        if "block_size" in options:
            require_count("block_size", options["block_size"])
            settings["num_kv_blocks"] = self.kv_slots // options["block_size"]
        # A policy may keep a state, so each engine has its own.
        settings["policy"] = pristine(settings["policy"])
        return super().engine(**{**settings, **options})

    def describe(self) -> dict[str, Any]:
        """Return what a record keeps of the machine, as plain values."""
        return {
            "model": self._model,
            "device": self._device,
            "cost_model": origin_of(self.cost_model),
            "held_out_error": held_out_error_of(self.cost_model),
            "is_simulated": True,
        }

    def __repr__(self) -> str:
        error = held_out_error_of(self.cost_model)
        told = "not validated" if error is None else f"{error:.1%} of a step, on average"
        return "\n".join(
            (
                f"TwinMachine: {self.name}",
                f"  KV cache        {self.kv_slots:,} tokens ({self.kv_origin})",
                f"  step time       {origin_of(self.cost_model)}",
                f"  held-out error  {told}",
            )
        )


def _policy(record: Record) -> Any:
    """Return the policy of a run's last step: as it was before it was asked, or its name."""
    names = record.steps["policy"]
    name = names.iloc[-1] if len(names) else record.config["policy"]
    if record.journal is not None:
        journal = journal_of(record)
        chosen = [entry.policy for entry in journal if isinstance(entry, PolicyChosen)]
        for policy in (*reversed(chosen), journal.base.policy):
            if policy.name == name:
                return policy
    return name


@dataclass(frozen=True, slots=True)
class WhatIf:
    """An answer of a twin; prints and renders as its table.

    ``table`` has a row per figure: ``recorded`` in the run, ``as_is`` and ``what_if`` on the twin,
    ``change`` between these two in parts, and ``low`` to ``high``, which is the twin's own error
    for that figure around ``what_if``.
    """

    question: str
    table: pd.DataFrame

    def __repr__(self) -> str:
        return f"What if {self.question}?\n{self.table.to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>What if {self.question}?</p>{self.table.to_html()}"


@dataclass(frozen=True, slots=True)
class Twin:
    """A machine that stands for a recorded engine, and how well it does; prints its errors.

    ``errors`` has a row per figure: ``recorded``, ``simulated`` and the relative ``error`` of the
    requests that came after the part of the run to which the cost model was fitted.
    """

    machine: TwinMachine
    errors: pd.DataFrame
    arrivals: tuple[Arrival, ...]
    recorded: Record
    simulated: Record

    def what_if(self, *, replicas: int = 1, router: Any = "least-loaded", **options: Any) -> WhatIf:
        """Serve the recorded arrivals with other settings, or on several machines.

        Args:
            replicas: Machines that share the load.
            router: Who chooses among them (`Fleet`).
            options: Of ``Machine.engine()``: policy, block_size, max_num_seqs, num_kv_blocks ...

        Raises:
            InvalidParameter: nothing would be different.
            InvalidConfig: no such option, or one that makes no sense.
        """
        if replicas == 1 and not options:
            raise InvalidParameter("what_if() needs something to change: policy=, replicas= ...")
        if replicas == 1:
            requests = self.machine.run(self.arrivals, **options).requests
        else:
            fleet = Fleet(self.machine, replicas=replicas, router=router)
            requests = fleet.run(self.arrivals, **options).requests
        table = pd.DataFrame(
            {
                "recorded": figures(_as_load(self.recorded)),
                "as_is": figures(self.simulated.requests),
                "what_if": figures(requests),
            }
        )
        table["change"] = table["what_if"] / table["as_is"] - 1
        error = self.errors["error"].abs()
        table["low"] = table["what_if"] * (1 - error)
        table["high"] = table["what_if"] * (1 + error)
        asked = {"replicas": replicas} if replicas > 1 else {}
        told = ", ".join(f"{name}={value!r}" for name, value in (asked | options).items())
        return WhatIf(told, table)

    def __repr__(self) -> str:
        return f"Twin of {len(self.arrivals)} requests\n{self.machine}\n{self.errors.to_string()}"

    def _repr_html_(self) -> str:
        return f"<pre>{self.machine}</pre>{self.errors.to_html()}"


def twin(record: Record, *, cost_model: CostModel | None = None, share: float = 0.5) -> Twin:
    """Fit a machine to the first part of a run, serve the recorded arrivals on it, compare.

    Args:
        record: Of a run at the level "tokens" or above, all of whose requests have one sample.
        cost_model: One that is known already, from another run for instance: then nothing is fitted
            and all requests are compared.
        share: Which part of the steps the fit may see.

    Raises:
        RecordError: too few steps for a fit, no chunks, or requests that are no load.
        InvalidParameter: the share leaves nothing to fit to, or nothing to compare.
    """
    if not 0 < share < 1:
        raise InvalidParameter(f"share={share!r} must lie between 0 and 1", param="share")
    arrivals = recorded_arrivals(record)
    first_s = 0.0
    if cost_model is None:
        steps = record.steps
        split = steps.iloc[int(share * len(steps))]
        cost_model = fit(record, end_step=int(split["step"]))
        first_s = float(split["start_s"]) - _first_arrival_s(record)
    machine = TwinMachine(record, cost_model)
    simulated = machine.run(arrivals)
    recorded, found = _as_load(record), simulated.requests
    late = recorded["arrival_s"] >= first_s
    if not late.any():
        raise InvalidParameter(
            f"share={share!r} leaves nothing to compare: no request came after the first "
            f"{first_s:.3g} s of the run, to which the cost model is fitted; lower share, or give "
            "a cost_model= that was fitted to another run, and all requests are compared",
            param="share",
        )
    errors = relative_errors(recorded[late], found[found["arrival_s"] >= first_s])
    return Twin(machine, errors, arrivals, record, simulated)


def what_if(record: Record | Twin, **changes: Any) -> WhatIf:
    """Return how a recorded run would have gone with other settings; see ``Twin.what_if``.

    With several questions, make the twin once: ``twin(record).what_if(...)``.
    """
    return (record if isinstance(record, Twin) else twin(record)).what_if(**changes)


def figures(requests: pd.DataFrame) -> pd.Series[Any]:
    """Return mean and quantiles of the latencies of finished requests, and the rates, in order.

    The index has a figure's ``metric`` and ``quantile``.
    """
    table = summarise(requests, None)
    found = {
        (metric, quantile): table.loc[metric, quantile]
        for metric in ("ttft_s", "tpot_s", "e2e_s")
        for quantile in QUANTILES
    }
    found |= {(rate, "mean"): table.loc[rate, "mean"] for rate in RATES}
    series = pd.Series(found, dtype="float64")
    series.index.names = ["metric", "quantile"]
    return series


def relative_errors(recorded: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """Return a row per figure of two tables of requests: recorded, simulated, relative error."""
    table = pd.DataFrame({"recorded": figures(recorded), "simulated": figures(simulated)})
    table["error"] = table["simulated"] / table["recorded"] - 1
    return table


def _first_arrival_s(record: Record) -> float:
    """Return when the first request came that is part of the load."""
    requests = record.requests
    return float(requests.loc[requests["status"] == "finished", "arrival_s"].min())


def _as_load(record: Record) -> pd.DataFrame:
    """Return the finished requests of a run, with arrivals that count from the first of them."""
    requests = record.requests
    requests = requests[(requests["status"] == "finished") & (requests["num_output_tokens"] > 0)]
    shift_s = _first_arrival_s(record)
    times = ["arrival_s", "first_token_s", "last_token_s", "finished_s"]
    return requests.assign(**{name: requests[name] - shift_s for name in times})
