"""Workloads and traces, load generation, and the field's experiments, ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.experiments.arrivals import AtOnce, Closed, Constant, Gamma, Poisson, Ramp
from toolkit.experiments.content import ChatTurns, Content, RandomTokens, SharedPrefix
from toolkit.experiments.given import Corpus
from toolkit.experiments.lengths import Fixed, LogNormal, Uniform
from toolkit.experiments.surrogates import (
    Alpaca,
    ArXiv,
    DistServeHumanEval,
    DistServeLongBench,
    DistServeShareGPT,
    OpenChatShareGPT4,
    ShareGPT,
)
from toolkit.experiments.workload import Workload

if TYPE_CHECKING:  # what __getattr__ gives, for those who read types
    from toolkit.experiments import metrics
    from toolkit.experiments.results import Run
    from toolkit.experiments.running import run

__all__ = [
    "Alpaca",
    "ArXiv",
    "AtOnce",
    "ChatTurns",
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
    "metrics",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "run":  # pandas, which these need, takes a while
        from toolkit.experiments.running import run

        return run
    if name == "Run":
        from toolkit.experiments.results import Run

        return Run
    if name == "metrics":
        import toolkit.experiments.metrics as metrics

        return metrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
