"""Runs without a model, and runs again: simulated machines, an engine at an earlier step, a replay.

A simulated machine is the real scheduler and the real block pool over a cost model and a virtual
clock:

    machine = Machine("opt-13b", "A100-40GB")
    record = machine.run(arrivals)
"""

from toolkit.simulate.allocators import (
    ALLOCATORS,
    ContiguousCache,
    MemoryMeter,
    MemoryUse,
    make_cache,
    memory_use,
)
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.beams import BeamRunner
from toolkit.simulate.cost import CostModel, held_out_error_of, origin_of
from toolkit.simulate.devices import DEVICES, Device, resolve_device
from toolkit.simulate.disaggregated import Disaggregated
from toolkit.simulate.divergence import Difference, Divergence, diff
from toolkit.simulate.drive import add_arrival, drive
from toolkit.simulate.feed import Due, Feed
from toolkit.simulate.fit import FittedCost, fit, predicted_steps
from toolkit.simulate.fleet import Fleet, FleetRun
from toolkit.simulate.identity import Identity, identity
from toolkit.simulate.machine import Machine
from toolkit.simulate.progress import progress_bar
from toolkit.simulate.published import Published, Terms, published_cost
from toolkit.simulate.recorded import RecordedCost, recorded_arrivals
from toolkit.simulate.replay import RecordedEngine, engine_at, replay
from toolkit.simulate.roofline import Roofline
from toolkit.simulate.routers import ROUTERS, LeastLoaded, PrefixAware, RandomChoice
from toolkit.simulate.runner import SimulatedRunner
from toolkit.simulate.shapes import SHAPES, ModelShape, resolve_shape
from toolkit.simulate.sharing import closed_form_sharing, saved_by_sharing
from toolkit.simulate.static_batching import StaticBatching
from toolkit.simulate.timeline import Replica
from toolkit.simulate.twin import Twin, TwinMachine, WhatIf, twin, what_if
from toolkit.simulate.vidur import vidur_metrics
from toolkit.simulate.work import StepWork, work_of

__all__ = [
    "ALLOCATORS",
    "DEVICES",
    "ROUTERS",
    "SHAPES",
    "Arrival",
    "BeamRunner",
    "ContiguousCache",
    "CostModel",
    "Device",
    "Difference",
    "Disaggregated",
    "Divergence",
    "Due",
    "Feed",
    "FittedCost",
    "Fleet",
    "FleetRun",
    "Identity",
    "LeastLoaded",
    "Machine",
    "MemoryMeter",
    "MemoryUse",
    "ModelShape",
    "PrefixAware",
    "Published",
    "RandomChoice",
    "RecordedCost",
    "RecordedEngine",
    "Replica",
    "Roofline",
    "SimulatedRunner",
    "StaticBatching",
    "StepWork",
    "Terms",
    "Twin",
    "TwinMachine",
    "WhatIf",
    "add_arrival",
    "closed_form_sharing",
    "diff",
    "drive",
    "engine_at",
    "fit",
    "held_out_error_of",
    "identity",
    "make_cache",
    "memory_use",
    "origin_of",
    "predicted_steps",
    "progress_bar",
    "published_cost",
    "recorded_arrivals",
    "replay",
    "resolve_device",
    "resolve_shape",
    "saved_by_sharing",
    "twin",
    "vidur_metrics",
    "what_if",
    "work_of",
]
