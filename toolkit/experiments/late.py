"""Names of ``toolkit.experiments`` that are loaded when first used, since they need pandas."""

from toolkit.experiments.capacity_search import Capacity, capacity
from toolkit.experiments.comparison import RunComparison, compare, jain_index
from toolkit.experiments.hit_rates import prefix_hit_rate, prefix_hit_rates
from toolkit.experiments.judging import VerdictTable, verdict_table, verdicts
from toolkit.experiments.policy_check import PolicyCheck, check_policy
from toolkit.experiments.reports import report
from toolkit.experiments.results import Run
from toolkit.experiments.running import run
from toolkit.experiments.sweeping import sweep

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
