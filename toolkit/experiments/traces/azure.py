"""Azure's LLM inference traces: `TIMESTAMP,ContextTokens,GeneratedTokens`.

From Azure/AzurePublicDataset (CC-BY); cite Patel et al., "Splitwise", ISCA 2024.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from toolkit.experiments.traces.trace import Collected, Place, Trace, opened, table_rows

__all__ = ["read_azure"]

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?")


def read_azure(path: Path, num_requests: int | None) -> Trace:
    """Read a trace; its prompts share nothing, for it says nothing about them."""
    collected = Collected(path, num_requests)
    started_s = None
    with opened(path) as file:
        needed = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
        for place, row in table_rows(path, file, needed=needed):
            whole_s, part_s = _moment(place, row["TIMESTAMP"])
            # From the first one on, so that the seven digits of the fraction are kept.
            started_s = whole_s if started_s is None else started_s
            num_prompt = place.whole(row["ContextTokens"], "ContextTokens")
            num_output = place.whole(row["GeneratedTokens"], "GeneratedTokens")
            collected.add(whole_s - started_s + part_s, num_prompt, num_output)
            if collected.is_full:
                break
    return collected.trace()


def _moment(place: Place, text: str) -> tuple[int, float]:
    """Return whole seconds since 1970 and the fraction."""
    found = _TIMESTAMP.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        base, fraction, zone = found.groups()
        zone = "+00:00" if zone in (None, "Z") else zone
        return int(datetime.fromisoformat(base + zone).timestamp()), float(fraction or 0)
    except ValueError:
        raise place.error("a TIMESTAMP like 2023-11-16 18:15:46.6805900", text) from None
