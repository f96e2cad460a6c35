"""How large must a prefix cache be, and does it matter which block it evicts?

The conversation trace of Mooncake (Qin et al., FAST 2025) through the real block pool, for a range
of cache sizes under LRU, FIFO, LFU and Belady's rule, which knows the future. Beside it, prompts
with a structure as SGLang's programs have (Zheng et al., NeurIPS 2024): few-shot questions and
chats. SGLang's own rates, 50 to 99 %, are of its own programs; how much ours have in common is our
choice, and so their hit rates are shown and not judged.

The trace is not part of the toolkit: give its path, or let the environment variable TOOLKIT_TRACES
name the folder in which mooncake_conversation.jsonl lies. Without it a synthetic trace of the same
kind is run, on which no claim is judged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.cache.blocks import block_hashes
from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue.basis import TRACES_VARIABLE
from toolkit.experiments.catalogue.result import Result, check_size
from toolkit.experiments.claims.table import find_claim
from toolkit.experiments.hit_rates import EVICTIONS, block_keys, prefix_hit_rate, prefix_hit_rates
from toolkit.experiments.workloads.arrivals import AtOnce
from toolkit.experiments.workloads.content import ChatTurns, SharedPrefix
from toolkit.experiments.workloads.lengths import LogNormal
from toolkit.experiments.workloads.surrogates import ShareGPT
from toolkit.experiments.workloads.workload import Workload

__all__ = ["CLAIMS", "NEEDS", "TITLE", "plot", "run", "synthetic_trace"]

TITLE = "How large must a prefix cache be?"
TRACE_FILE = "mooncake_conversation.jsonl"
NEEDS = f"needs the trace: let {TRACES_VARIABLE} name the folder with {TRACE_FILE}"
_CLAIMED_SIZES = {"unbounded": None, "1k": 1_000, "10k": 10_000, "50k": 50_000}
_MOONCAKE = {f"mooncake-conversation-{name}": size for name, size in _CLAIMED_SIZES.items()}
CLAIMS = tuple(_MOONCAKE)

_SIZES = {
    "quick": (1_000, 3_000, 10_000, 50_000, None),
    "paper": (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, None),
}
_BLOCK_SIZE = 16
_NUM_PROMPTS = {"quick": 400, "paper": 4_000}


def run(
    size: str = "quick",
    *,
    progress: bool | None = None,
    seed: int = 0,
    trace: str | Path | None = None,
) -> Result:
    """Measure hit rates by size and rule, and of structured prompts in a cache without a limit.

    Args:
        size: "quick" for five cache sizes, "paper" for eight.
        progress: Whether to show a bar; None shows it where somebody looks on.
        seed: Of the prompts that are drawn; the published trace has none.
        trace: Path of the conversation trace, or of another one in that format.

    Raises:
        InvalidConfig: there is no such size, or the trace cannot be read.
    """
    check_size(size)
    path = _trace_path(trace)
    prompts = synthetic_trace(seed=seed) if path is None else block_keys(path)
    rates = prefix_hit_rates(prompts, _SIZES[size], progress=progress)
    name = "synthetic" if path is None else path.stem
    rates.insert(0, "trace", name)
    structured = _structured(_NUM_PROMPTS[size], seed)
    measured: dict[str, float] = {}
    reasons: dict[str, str] = {}
    if path is None:
        reasons = dict.fromkeys(_MOONCAKE, NEEDS)
    else:
        lru = rates[rates["eviction"] == "lru"].set_index("num_blocks")["hit_rate"]
        for claim_id, num_blocks in _MOONCAKE.items():
            measured[claim_id] = 100 * float(lru[np.inf if num_blocks is None else num_blocks])
    return Result(
        name="prefix_cache_hit_rate",
        size=size,
        data={"hit_rates": rates, "structured": structured},
        measured=measured,
        reasons=reasons,
        seed=seed,
    )


def plot(result: Result) -> Any:
    """Draw the hit rate against the cache's size, a line per rule; published values are marks."""
    from toolkit.experiments import plots  # matplotlib comes with an extra

    rates = result.data["hit_rates"]
    bounded = rates[np.isfinite(rates["num_blocks"])]
    unlimited = 100 * rates.loc[~np.isfinite(rates["num_blocks"]), "hit_rate"].iloc[0]
    with plots.style():
        figure = plots.figure(width_in=5.6, height_in=2.9)
        axes = figure.subplots()
        for index, rule in enumerate(EVICTIONS):
            own = bounded[bounded["eviction"] == rule]
            axes.plot(
                own["num_blocks"],
                100 * own["hit_rate"],
                label="Belady" if rule == "belady" else rule.upper(),
                **plots.look(index)._asdict(),
            )
        axes.axhline(unlimited, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"no limit: {unlimited:.1f} %",
            (bounded["num_blocks"].min(), unlimited),
            xytext=(0, 2),
            textcoords="offset points",
        )
        if any(claim_id in result.measured for claim_id in _MOONCAKE):
            _mark_published(axes, plots.PAPER_COLOUR)
        axes.set_xscale("log")
        plots.plain_ticks(axes.xaxis)
        axes.set_ylim(0, 1.15 * unlimited)  # nothing finds more; the words need room
        axes.set_xlabel("cache size (blocks of 512 tokens)")
        axes.set_ylabel("block hit rate (%)")
        axes.set_title(TITLE if rates["trace"].iloc[0] != "synthetic" else f"{TITLE} (synthetic)")
        axes.legend()
        figure.data = rates
    return figure


def synthetic_trace(num_chats: int = 1_500, *, seed: int = 0) -> list[tuple[bytes, ...]]:
    """Return a made-up trace of chats: each turn repeats the one before and adds blocks.

    All begin with one block in common. Turns are geometric (mean 2), blocks per turn too (mean 8),
    and chats overlap in time; nothing in it is fitted to a published trace.
    """
    rng = np.random.default_rng(seed)
    turns: list[tuple[float, tuple[bytes, ...]]] = []
    num_names = 1
    for _ in range(num_chats):
        moment = rng.uniform(0, num_chats)
        names = [0]
        for _ in range(rng.geometric(0.5)):
            num_new = int(rng.geometric(1 / 8))
            names += range(num_names, num_names + num_new)
            num_names += num_new
            turns.append((moment, tuple(name.to_bytes(16, "little") for name in names)))
            moment += rng.exponential(num_chats / 20)
    return [prompt for _, prompt in sorted(turns, key=lambda turn: turn[0])]


def _trace_path(trace: str | Path | None) -> Path | None:
    """Return where the trace lies: as given, or in the folder that the environment names."""
    if trace is not None:
        if not Path(trace).is_file():
            raise InvalidConfig(f"trace={str(trace)!r} is no file")
        return Path(trace)
    folder = os.environ.get(TRACES_VARIABLE)
    path = Path(folder) / TRACE_FILE if folder else None
    return path if path is not None and path.is_file() else None


def _structured(num_prompts: int, seed: int) -> pd.DataFrame:
    """Return the token hit rates of prompts that share a beginning, in a cache without a limit.

    Few-shot questions have the prefix of vLLM's figure 16 (341 tokens, five examples) and a
    question of 60 tokens on average; chats have four turns with ShareGPT's lengths.
    """
    question = LogNormal(prompt_mean=60, output_mean=20, sigma=0.5, longest=512)
    loads = {
        "few-shot": Workload(
            AtOnce(), question, num_requests=num_prompts, content=SharedPrefix(341), seed=seed
        ),
        "chat": Workload(
            AtOnce(), ShareGPT(), num_requests=num_prompts, content=ChatTurns(4), seed=seed
        ),
    }
    rows = [(name, len(w.table), _token_hit_rate(_prompts(w))) for name, w in loads.items()]
    return pd.DataFrame(rows, columns=["prompts", "num_requests", "token_hit_rate"])


def _prompts(workload: Workload) -> Iterable[tuple[int, ...]]:
    return (
        workload.prompt_token_ids(arrival_id, 32_000) for arrival_id in range(workload.num_requests)
    )


def _token_hit_rate(prompts: Iterable[tuple[int, ...]]) -> float:
    """Return the share of prompt tokens that lie in blocks which were there."""
    lengths, names = [], []
    for prompt in prompts:
        lengths.append(len(prompt))
        names.append(tuple(block_hashes(prompt, _BLOCK_SIZE)))
    num_blocks = sum(map(len, names))
    return prefix_hit_rate(names) * num_blocks * _BLOCK_SIZE / sum(lengths)


def _mark_published(axes: Any, colour: str) -> None:
    points = [
        (num_blocks, find_claim(claim_id).value)
        for claim_id, num_blocks in _MOONCAKE.items()
        if num_blocks is not None
    ]
    axes.scatter(
        *zip(*points, strict=True),
        marker="x",
        s=40,
        color=colour,
        zorder=5,
        label="LRU, published trace",
    )
