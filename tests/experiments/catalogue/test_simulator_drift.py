"""What the fits of several ramps say of a machine's speed, on a machine whose speed is known."""

from __future__ import annotations

import pytest

from toolkit.experiments.catalogue import can_you_trust_the_simulator as experiment
from toolkit.simulate import Arrival, FittedCost, Machine


def test_the_part_by_which_a_machine_slowed_down_is_told_load_by_load():
    speeds = (1.25, 1.0, 1.5)
    costs = [FittedCost((0.01 * speed, 0, 0, 0, 0), 1, None, "made up") for speed in speeds]
    machine = Machine("opt-125m", "A100-40GB", cost_model=costs[1])
    checks = [
        experiment._Check(
            share,
            1.0,
            machine.run([Arrival(0, 0.0, 8, num_tokens)], level="tokens"),
            saturation=None,
        )
        for share, num_tokens in ((0.5, 3), (0.8, 6))
    ]
    drift = experiment._drift(costs, checks).set_index(["share", "ramp"])
    for share, num_steps in ((0.5, 3), (0.8, 6)):
        own = drift.loc[share]
        assert own["slower"].tolist() == pytest.approx([0.25, 0.0, 0.5])
        assert own["seconds"].tolist() == pytest.approx([0.01 * num_steps * s for s in speeds])
