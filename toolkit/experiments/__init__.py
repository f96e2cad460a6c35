"""Workloads and traces, load generation, and the field's experiments, ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.experiments.claims.claim import Claim
from toolkit.experiments.claims.table import CLAIMS
from toolkit.experiments.workloads.arrivals import AtOnce, Closed, Constant, Gamma, Poisson, Ramp
from toolkit.experiments.workloads.content import ChatTurns, Content, RandomTokens, SharedPrefix
from toolkit.experiments.workloads.given import Corpus
from toolkit.experiments.workloads.lengths import Fixed, LogNormal, Uniform
from toolkit.experiments.workloads.surrogates import (
    Alpaca,
    ArXiv,
    DistServeHumanEval,
    DistServeLongBench,
    DistServeShareGPT,
    OpenChatShareGPT4,
    ShareGPT,
)
from toolkit.experiments.workloads.workload import Workload

if TYPE_CHECKING:  # what __getattr__ gives, for those who read types
    from toolkit.experiments import catalogue, metrics, plots
    from toolkit.experiments.late import (
        Run,
        capacity,
        check_policy,
        compare,
        jain_index,
        prefix_hit_rate,
        prefix_hit_rates,
        report,
        run,
        sweep,
        verdict_table,
        verdicts,
    )

__all__ = [
    "CLAIMS",
    "Alpaca",
    "ArXiv",
    "AtOnce",
    "ChatTurns",
    "Claim",
    "Closed",
    "Constant",
    "Content",
    "Corpus",
    "DistServeHumanEval",
    "DistServeLongBench",
    "DistServeShareGPT",
    "Fixed",
    "Gamma",
    "LogNormal",
    "OpenChatShareGPT4",
    "Poisson",
    "Ramp",
    "RandomTokens",
    "Run",
    "ShareGPT",
    "SharedPrefix",
    "Uniform",
    "Workload",
    "capacity",
    "catalogue",
    "check_policy",
    "compare",
    "jain_index",
    "metrics",
    "plots",
    "prefix_hit_rate",
    "prefix_hit_rates",
    "report",
    "run",
    "sweep",
    "verdict_table",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    if name == "plots":  # matplotlib comes with an extra
        import toolkit.experiments.plots as plots

        return plots
    if name == "catalogue":
        import toolkit.experiments.catalogue as catalogue

        return catalogue
    if name == "metrics":
        import toolkit.experiments.metrics as metrics

        return metrics
    if name in __all__:
        import toolkit.experiments.late as late

        return getattr(late, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
