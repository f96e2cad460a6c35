"""Workloads and traces, load generation, and the field's experiments, ready to run."""

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
    "ShareGPT",
    "SharedPrefix",
    "Uniform",
    "Workload",
]
