"""Names of ``toolkit.experiments`` that are loaded when first used, since they need pandas."""

from toolkit.experiments.claims.judging import VerdictTable, verdict_table, verdicts
from toolkit.experiments.hit_rates import prefix_hit_rate, prefix_hit_rates
from toolkit.experiments.reports import report
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.running import run
from toolkit.experiments.studies.capacity_search import Capacity, capacity
from toolkit.experiments.studies.comparison import RunComparison, compare, jain_index
from toolkit.experiments.studies.policy_check import PolicyCheck, check_policy
from toolkit.experiments.studies.sweeping import sweep

__all__ = [
    "Capacity",
    "PolicyCheck",
    "Run",
    "RunComparison",
    "VerdictTable",
    "capacity",
    "check_policy",
    "compare",
    "jain_index",
    "prefix_hit_rate",
    "prefix_hit_rates",
    "report",
    "run",
    "sweep",
    "verdict_table",
    "verdicts",
]
