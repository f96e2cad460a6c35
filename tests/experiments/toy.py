"""An experiment that takes no time, for tests of what runs and shows experiments."""

from __future__ import annotations

from typing import Any

import pandas as pd

from toolkit.experiments import plots
from toolkit.experiments.catalogue import Result


class Toy:
    """Measures two claims: one of them well, with as many seeds as it is told, one not at all."""

    TITLE = "Is a toy <quick>?"
    CLAIMS = ("vllm-orca-max-batch", "nano-vllm-output-tokens")

    def __init__(self) -> None:
        self.num_runs = 0
        self.sampled: tuple[float, ...] = ()

    def run(self, size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
        self.num_runs += 1
        table = pd.DataFrame({"rate": range(100), "name": "<b>", "value": 1 / 3})
        return Result(
            "toy",
            size,
            {"curve": table},
            {"vllm-orca-max-batch": 7.0},
            {"nano-vllm-output-tokens": "needs <a model>"},
            seed,
            samples={"vllm-orca-max-batch": self.sampled} if self.sampled else {},
        )

    def plot(self, result: Result) -> Any:
        fig = plots.figure()
        fig.subplots().plot(result.data["curve"]["rate"])
        fig.data = result.data["curve"]
        return fig
