"""The field's experiments, one module each, by the name of the module.

A module has a ``TITLE``, the ids of its ``CLAIMS``, ``run(size="quick", *, progress=None, seed=0)``
that returns a ``Result``, and ``plot(result)`` that returns a figure with the paper's values on it.
"""

from __future__ import annotations

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import (
    can_you_trust_the_simulator,
    chunked_prefill,
    continuous_against_static,
    how_benchmarks_lie,
    latency_against_load,
    offline_throughput_ladder,
    prefix_cache_hit_rate,
    sharing_and_copy_on_write,
    where_the_memory_goes,
)
from toolkit.experiments.catalogue.result import SIZES, Experiment, Result

__all__ = ["EXPERIMENTS", "SIZES", "Experiment", "Result", "find"]

EXPERIMENTS: dict[str, Experiment] = {
    "where_the_memory_goes": where_the_memory_goes,
    "latency_against_load": latency_against_load,
    "can_you_trust_the_simulator": can_you_trust_the_simulator,
    "continuous_against_static": continuous_against_static,
    "chunked_prefill": chunked_prefill,
    "prefix_cache_hit_rate": prefix_cache_hit_rate,
    "sharing_and_copy_on_write": sharing_and_copy_on_write,
    "how_benchmarks_lie": how_benchmarks_lie,
    "offline_throughput_ladder": offline_throughput_ladder,
}


def find(name: str) -> Experiment:
    """Return an experiment by its name; hyphens may stand for underscores.

    Raises:
        InvalidConfig: there is none of that name.
    """
    found = EXPERIMENTS.get(name.replace("-", "_"))
    if found is None:
        raise InvalidConfig(f"no experiment is called {name!r}; there are {', '.join(EXPERIMENTS)}")
    return found
