"""Runs without a model, and runs again: an engine at an earlier step, a recorded run replayed."""

from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.divergence import Difference, Divergence, diff
from toolkit.simulate.replay import RecordedEngine, engine_at, replay
from toolkit.simulate.work import StepWork, work_of

__all__ = [
    "Arrival",
    "Difference",
    "Divergence",
    "RecordedEngine",
    "StepWork",
    "diff",
    "engine_at",
    "replay",
    "work_of",
]
