"""Mooncake's traces: JSON lines of `timestamp` (ms), `input_length`, `output_length`, `hash_ids`.

From kvcache-ai/Mooncake, FAST25-release/traces (Apache-2.0); cite Qin et al., "Mooncake", FAST 2025
(arXiv 2407.00079). An id stands for a block of 512 tokens of the prompt and all before it; the last
block may be a part of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.experiments.traces.trace import Collected, Place, Trace, json_value, opened
from toolkit.experiments.workloads.columns import Ragged
from toolkit.experiments.workloads.given import GivenBlocks

__all__ = ["BLOCK_TOKENS", "read_mooncake"]

BLOCK_TOKENS = 512


def read_mooncake(path: Path, num_requests: int | None) -> Trace:
    """Read a trace; prompts share the blocks that it says they share."""
    collected = Collected(path, num_requests)
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip() and _add(collected, Place(path, number), line) and collected.is_full:
                break
    columns = collected.columns()
    ids = Ragged.of([collected.extra[k] for k in collected.order()], dtype="int64")
    return collected.trace(GivenBlocks(ids, BLOCK_TOKENS).head(len(columns)))


def _add(collected: Collected, place: Place, line: str) -> bool:
    try:
        entry: dict[str, Any] = json_value(line)
        time_ms, ids = entry["timestamp"], entry["hash_ids"]
        lengths = entry["input_length"], entry["output_length"]
    except (ValueError, TypeError, KeyError):
        fields = '{"timestamp", "input_length", "output_length", "hash_ids"}'
        raise place.error(f"an object with {fields}", line.strip()[:80]) from None
    num_prompt = place.whole(lengths[0], "input_length")
    num_output = place.whole(lengths[1], "output_length")
    num_blocks = -(-num_prompt // BLOCK_TOKENS)
    is_list = isinstance(ids, list) and all(type(i) is int and 0 <= i < 2**63 for i in ids)
    if not is_list or len(ids) != num_blocks:
        raise place.error(f"{num_blocks} hash_ids, one for each {BLOCK_TOKENS} tokens", ids)
    is_kept = collected.add(place.seconds(time_ms, "timestamp") / 1e3, num_prompt, num_output)
    if is_kept:
        collected.extra.append(ids)
    return is_kept
