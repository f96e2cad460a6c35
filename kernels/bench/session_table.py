"""Print what a session on a GPU has measured: a line for each figure that there is.

OUT=FOLDER python kernels/bench/session_table.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("OUT") or Path(__file__).parent / "results")
Line = tuple[str, str, str]  # what was measured, the figure, the part of what is possible


def read(name: str) -> dict[str, Any]:
    """Return a result, empty where there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def attention_lines() -> Iterator[Line]:
    """Yield single tokens, prompts and mixed batches."""
    for row in read("attention_single").get("rows", []):
        size = f"{row['batch']} x {row['context']}, {row['num_heads']} heads"
        part = f"{row['fraction_of_read_bandwidth']:.0%} of read bandwidth"
        yield f"single tokens, {size}", f"{row['us']} us", part
    for row in read("attention_prompts").get("rows", []):
        size = f"{row['batch']} x {row['context']}, {row['num_heads']} heads"
        part = f"torch {row['torch_tflop_per_s']}; {row['paged_over_contiguous']} of contiguous"
        yield f"prompts, {size}", f"{row['tflop_per_s']} TFLOP/s", part
    for row in read("attention_mixed").get("rows", []):
        yield "a mixed batch", f"{row['us']} us", f"{row['over_sum_of_parts']} of its parts"
    for row in read("attention_ladder").get("rungs", []):
        what = f"ladder: {row['rung']}, {row['batch']} x {row['context']}"
        yield what, f"{row['us']} us", f"{row['fraction_of_limit']:.0%} of read bandwidth"


def op_lines() -> Iterator[Line]:
    """Yield the measured limits and every op's time."""
    metrics = read("ops").get("metrics", {})
    for name, metric in metrics.items():
        yield name, str(metric["median"]), ""


def engine_lines() -> Iterator[Line]:
    """Yield tokens/s of the engine, and of transformers over the same load."""
    for path in sorted(FOLDER.glob("offline_engine_*.json")):
        result = read(path.stem)
        for way, row in result["ways"].items():
            what = f"{result['model']}, {result['num_requests']} requests, {way}"
            part = ""
            if "host_share" in row:
                part = f"{row['fraction_of_least_time']:.0%} of limit, host {row['host_share']:.0%}"
            yield what, f"{row['output_tokens_per_s']} tokens/s", part


def stage_lines() -> Iterator[Line]:
    """Yield how each stage ended; the last word counts."""
    path = FOLDER / "gpu_session.tsv"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    last = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    for stage, (state, seconds) in last.items():
        yield f"stage {stage}", f"{seconds} s", state


def main() -> None:
    """Print the table."""
    lines = [*attention_lines(), *op_lines(), *engine_lines(), *stage_lines()]
    widths = [max((len(line[column]) for line in lines), default=0) for column in (0, 1)]
    for what, figure, part in lines:
        print(f"{what:<{widths[0]}}  {figure:>{widths[1]}}  {part}".rstrip())
    dry = [path.stem for path in FOLDER.glob("*.json") if read(path.stem).get("is_dry_run")]
    if dry:
        print("a dry run: these figures say nothing")


if __name__ == "__main__":
    main()
