"""Reproduce throughput experiments: workloads, one way to run them anywhere, claims to check."""

from __future__ import annotations

from typing import Any

from toolkit.experiments.claims import Claim
from toolkit.experiments.claims_table import CLAIMS

__all__ = ["CLAIMS", "Claim", "plots"]


def __getattr__(name: str) -> Any:
    if name == "plots":  # matplotlib comes with an extra
        import toolkit.experiments.plots as plots

        return plots
    raise AttributeError(f"module 'toolkit.experiments' has no attribute {name!r}")
