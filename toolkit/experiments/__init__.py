"""Reproduce throughput experiments: workloads, one way to run them anywhere, claims to check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.experiments.claims import Claim
from toolkit.experiments.claims_table import CLAIMS

if TYPE_CHECKING:  # what __getattr__ gives, for those who read types
    from toolkit.experiments import catalogue, plots
    from toolkit.experiments.late import (
        capacity,
        check_policy,
        compare,
        jain_index,
        report,
        sweep,
        verdict_table,
        verdicts,
    )

__all__ = [
    "CLAIMS",
    "Claim",
    "capacity",
    "catalogue",
    "check_policy",
    "compare",
    "jain_index",
    "plots",
    "report",
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
    if name in __all__:
        import toolkit.experiments.late as late

        return getattr(late, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
