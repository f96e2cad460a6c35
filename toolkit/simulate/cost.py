"""What a cost model is: a function from a step's work to seconds, and where it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from toolkit.simulate.work import StepWork

__all__ = ["CostModel", "held_out_error_of", "origin_of"]

# Any callable will do. Two attributes are read where it has them: ``origin``, which says where its
# figures come from, and ``held_out_error``, its mean relative error on steps that it was not fitted
# to.
CostModel: TypeAlias = Callable[[StepWork], float]


def origin_of(cost_model: CostModel) -> str:
    """Return where a cost model's figures come from, in words."""
    origin = getattr(cost_model, "origin", None)
    if origin is not None:
        return str(origin)
    name = getattr(cost_model, "__name__", type(cost_model).__name__)
    return f"the caller's own {name}"


def held_out_error_of(cost_model: CostModel) -> float | None:
    """Return its mean relative error on steps that it was not fitted to; None if nobody looked."""
    error = getattr(cost_model, "held_out_error", None)
    return None if error is None else float(error)
