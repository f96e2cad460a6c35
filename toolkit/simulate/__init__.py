"""Runs without a model, and runs again: simulated machines, an engine at an earlier step, a replay.

A simulated machine is the real scheduler and the real block pool over a cost model and a virtual
clock:

    machine = Machine("opt-13b", "A100-40GB")
    record = machine.run(arrivals)
"""

from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.cost import CostModel, held_out_error_of, origin_of
from toolkit.simulate.devices import DEVICES, Device, resolve_device
from toolkit.simulate.divergence import Difference, Divergence, diff
from toolkit.simulate.drive import add_arrival, drive
from toolkit.simulate.feed import Due, Feed
from toolkit.simulate.machine import Machine
from toolkit.simulate.progress import progress_bar
from toolkit.simulate.published import Published, Terms, published_cost
from toolkit.simulate.replay import RecordedEngine, engine_at, replay
from toolkit.simulate.roofline import Roofline
from toolkit.simulate.runner import SimulatedRunner
from toolkit.simulate.shapes import SHAPES, ModelShape, resolve_shape
from toolkit.simulate.work import StepWork, work_of

__all__ = [
    "DEVICES",
    "SHAPES",
    "Arrival",
    "CostModel",
    "Device",
    "Difference",
    "Divergence",
    "Due",
    "Feed",
    "Machine",
    "ModelShape",
    "Published",
    "RecordedEngine",
    "Roofline",
    "SimulatedRunner",
    "StepWork",
    "Terms",
    "add_arrival",
    "diff",
    "drive",
    "engine_at",
    "held_out_error_of",
    "origin_of",
    "progress_bar",
    "published_cost",
    "replay",
    "resolve_device",
    "resolve_shape",
    "work_of",
]
