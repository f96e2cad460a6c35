"""The batching engine, torch-free: plan, scheduler, policies, events, loop."""

from toolkit.engine import until
from toolkit.engine.engine import Engine
from toolkit.engine.plan import SampledToken, ScheduledChunk, StepPlan, StepResult, StepTimes
from toolkit.engine.policies import POLICIES
from toolkit.engine.policy import NOBODY, Policy, SchedulerView
from toolkit.engine.report import StepReport
from toolkit.engine.scheduler import Scheduler

__all__ = [
    "NOBODY",
    "POLICIES",
    "Engine",
    "Policy",
    "SampledToken",
    "ScheduledChunk",
    "Scheduler",
    "SchedulerView",
    "StepPlan",
    "StepReport",
    "StepResult",
    "StepTimes",
    "until",
]
