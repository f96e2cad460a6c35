"""What a reader of a run's figures must know, wherever it ran, and what was asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from toolkit.experiments.runs.saturation import Saturation

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.experiments.workloads.workload import Workload

__all__ = ["common_notes", "description_of"]

logger = logging.getLogger(__name__)

# Of the prompt tokens; less is chance.
_CACHED_SHARE = 0.01


def description_of(workload: Workload) -> dict[str, Any]:
    """Return what tells one workload from another, as plain values."""
    return {
        "repr": repr(workload),
        "fingerprint": workload.fingerprint,
        "num_requests": workload.num_requests,
        "rate": workload.rate,
    }


def common_notes(
    requests: pd.DataFrame,
    watched: Saturation | None,
    *,
    is_interrupted: bool = False,
    remedy: str = "",
) -> list[str]:
    """Return what is to be said of a run; a client that was the bottleneck is warned of too.

    Args:
        requests: Of the run.
        watched: Whether its client kept up; None if there was none.
        is_interrupted: Whether it was ended early.
        remedy: What helps a client of this kind that did not keep up.
    """
    notes = []
    if is_interrupted:
        notes.append(
            "the load was interrupted"
            + (f": {watched.num_unsent} requests were not sent" if watched else "")
        )
    failed = requests[requests["status"] == "failed"]
    if len(failed):
        notes.append(
            f"{len(failed)} of {len(requests)} requests failed; the first: "
            f"{failed['error'].iloc[0]}"
        )
    num_prompt = int(requests["num_prompt_tokens"].sum())
    num_cached = int(requests["num_cached_tokens"].sum())
    if num_cached > _CACHED_SHARE * num_prompt:
        notes.append(
            f"{100 * num_cached / num_prompt:.0f} % of the prompt tokens were found in the prefix "
            "cache"
        )
    if watched is not None and watched.omission is not None:
        notes.append(watched.omission)
    if watched is not None and watched.is_saturated:
        logger.warning(
            "the client was the bottleneck, not what it measured: %s; %s", watched, remedy
        )
    return notes
