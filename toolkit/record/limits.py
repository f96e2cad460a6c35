"""Limits on latency (service level objectives) and which requests keep them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import InvalidParameter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SLO_NAMES", "check_limits", "keeps_limits"]

SLO_NAMES = ("ttft_s", "tpot_s", "e2e_s", "itl_p50_s", "itl_p99_s", "itl_max_s")


def check_limits(slo: Mapping[str, float]) -> dict[str, float]:
    """Return limits as they came; raise InvalidParameter if one is unknown or no number above 0."""
    if not isinstance(slo, Mapping):
        raise InvalidParameter(
            f"slo={slo!r} must give limits by name, as {{'ttft_s': 0.5}}", param="slo"
        )
    for name, limit in slo.items():
        if name not in SLO_NAMES:
            raise InvalidParameter(
                f"slo={name!r} is not one of {', '.join(SLO_NAMES)}", param="slo"
            )
        if not isinstance(limit, Real) or not limit > 0:
            raise InvalidParameter(
                f"slo: {name}={limit!r} must be a number of seconds above 0", param="slo"
            )
    return dict(slo)


def keeps_limits(requests: pd.DataFrame, limits: Mapping[str, float]) -> np.ndarray[Any, Any]:
    """Return which requests keep all limits; what failed or was aborted keeps none.

    An answer whose tokens all came at one moment has no gap that could be too long.

    Raises:
        InvalidParameter: nobody measured what a limit is on.
    """
    is_finished = (requests["status"] == "finished").to_numpy("bool")
    has_gaps = is_finished & (requests["last_token_s"] > requests["first_token_s"]).to_numpy("bool")
    good = is_finished
    for name, limit in limits.items():
        values = requests[name].to_numpy("float64", na_value=np.nan)
        num_unknown = int((np.isnan(values) & has_gaps).sum())
        if num_unknown:
            raise InvalidParameter(
                f"slo: {name} was not measured of {num_unknown} answers, so nobody knows whether "
                "they keep it; leave this limit out, or use another",
                param="slo",
            )
        good = good & ~(values > limit)
    return good
