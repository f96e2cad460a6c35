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
STAGES = {"qwen3-0.6b": "engine", "qwen3-8b": "large"}  # of an engine's results, by their name


def read(name: str) -> dict[str, Any]:
    """Return a result, empty where there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def share(result: dict[str, Any], fraction: float, limit: str) -> str:
    """Say a part of what is possible; nothing of a dry run, where it is always next to 0."""
    return "" if result.get("is_dry_run") else f"{fraction:.0%} of {limit}"


def attention_lines() -> Iterator[Line]:
    """Yield single tokens, prompts and mixed batches."""
    single = read("attention_single")
    for row in single.get("rows", []):
        size = f"{row['batch']} x {row['context']}, {row['num_heads']} heads"
        part = share(single, row["fraction_of_read_bandwidth"], "read bandwidth")
        yield f"single tokens, {size}", f"{row['us']} us", part
    for row in read("attention_prompts").get("rows", []):
        size = f"{row['batch']} x {row['context']}, {row['num_heads']} heads"
        part = f"torch {row['torch_tflop_per_s']}; {row['paged_over_contiguous']} of contiguous"
        yield f"prompts, {size}", f"{row['tflop_per_s']} TFLOP/s", part
    for row in read("attention_mixed").get("rows", []):
        yield "a mixed batch", f"{row['us']} us", f"{row['over_sum_of_parts']} of its parts"
    ladder = read("attention_ladder")
    for row in ladder.get("rungs", []):
        what = f"ladder: {row['rung']}, {row['batch']} x {row['context']}"
        yield what, f"{row['us']} us", share(ladder, row["fraction_of_limit"], "read bandwidth")


def op_lines() -> Iterator[Line]:
    """Yield the measured limits and every op's time."""
    metrics = read("ops").get("metrics", {})
    for name, metric in metrics.items():
        what, unit = name.rsplit(" ", 1)
        yield f"ops: {what}", f"{metric['median']} {unit}", ""


def engine_lines() -> Iterator[Line]:
    """Yield tokens/s of the engine, and of transformers over the same load."""
    for path in sorted(FOLDER.glob("offline_engine_*.json")):
        result, name = read(path.stem), path.stem.removeprefix("offline_engine_")
        stage = STAGES.get(name, name)
        for way, row in result["ways"].items():
            what = f"{stage}: {result['model']}, {result['num_requests']} requests, {way}"
            part = ""
            if "host_share" in row and not result["is_dry_run"]:
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
