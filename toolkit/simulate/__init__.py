"""Runs without a model, and runs again: an engine at an earlier step, a recorded run replayed."""

from toolkit.simulate.divergence import Difference, Divergence, diff
from toolkit.simulate.replay import RecordedEngine, engine_at, replay

__all__ = ["Difference", "Divergence", "RecordedEngine", "diff", "engine_at", "replay"]
