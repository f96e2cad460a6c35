"""How much of a trace a prefix cache of some size would have found, under some rule of eviction.

The real `BlockPool` serves the requests one after another: a request's blocks are looked up from
its first one on until one is missing, the rest are taken and named, and all are given back. Time
and batching do not enter, so a rate is exact and the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import index
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from toolkit.cache.blocks import BlockPool, Eviction, FarthestUse, FirstIn, LeastUsed
from toolkit.errors import InvalidConfig
from toolkit.experiments.traces.trace import Place, json_value, opened
from toolkit.simulate import progress_bar

__all__ = ["EVICTIONS", "block_keys", "prefix_hit_rate", "prefix_hit_rates"]

EVICTIONS = ("lru", "fifo", "lfu", "belady")

Keys: TypeAlias = Sequence[bytes]  # names of one prompt's blocks, in order
Trace: TypeAlias = str | Path | Iterable[Keys]


def prefix_hit_rate(
    trace_path: Trace,
    num_blocks: int | None = None,
    eviction: str | Callable[[], Eviction] = "lru",
) -> float:
    """Return the share of a trace's prompt blocks that are found in a cache.

    Of a prompt longer than the cache only the first blocks are looked up and kept; the others count
    as not found.

    Args:
        trace_path: A file in Mooncake's format, of which each ``hash_ids`` is one prompt and each
            id in it one block (of 512 tokens there); or the names of each prompt's blocks.
        num_blocks: Size of the cache in blocks; None for one in which everything stays.
        eviction: "lru" (the engine's own), "fifo", "lfu", "belady" (what knowing the future would
            give), or what makes an `Eviction`.

    Raises:
        InvalidConfig: the file is not of that format, or there is no such rule or size.

    >>> prompts = [[b"a", b"b"], [b"a", b"c"], [b"a", b"b"]]
    >>> prefix_hit_rate(prompts), prefix_hit_rate(prompts, num_blocks=2)
    (0.5, 0.3333333333333333)
    """
    return _hit_rate(_prompts(trace_path), num_blocks, eviction)


def prefix_hit_rates(
    trace: Trace,
    num_blocks: Iterable[int | None] = (None,),
    eviction: Iterable[str] = EVICTIONS,
    *,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Return the hit rate for every size and rule: a row each, for curves.

    Columns: ``eviction``, ``num_blocks`` (inf where everything stays), ``hit_rate``. Without
    evictions all rules agree, so the trace is run once for the unlimited size.

    Raises:
        InvalidConfig: as for ``prefix_hit_rate``.
    """
    prompts, rules = _prompts(trace), tuple(eviction)
    sizes = tuple(num_blocks)
    cells = [(rule, size) for size in sizes for rule in rules]
    found: dict[tuple[str, int | None], float] = {}
    with progress_bar(len(cells), "Serving", unit="run", progress=progress) as bar:
        for rule, size in cells:
            key = (rules[0] if size is None else rule, size)
            if key not in found:
                found[key] = _hit_rate(prompts, size, rule)
            found[rule, size] = found[key]
            bar.update()
    rows = [
        (rule, float("inf") if size is None else float(size), found[rule, size])
        for rule, size in cells
    ]
    return pd.DataFrame(rows, columns=["eviction", "num_blocks", "hit_rate"])


def block_keys(trace_path: str | Path) -> list[tuple[bytes, ...]]:
    """Return the names of each prompt's blocks in a file of Mooncake's format, in its order.

    Raises:
        InvalidConfig: the file cannot be read or holds none, or a line has no list of whole
            numbers as ``hash_ids``.
    """
    path = Path(trace_path)
    prompts = []
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                ids = json_value(line)["hash_ids"]
                prompts.append(tuple(index(key).to_bytes(16, "little") for key in ids))
            except (ValueError, KeyError, TypeError, OverflowError):
                raise Place(path, number).error(
                    "a JSON object with `hash_ids`, a list of ids of blocks", line.strip()[:80]
                ) from None
    if not prompts:
        raise InvalidConfig(f"{path} holds no requests")
    return prompts


def _prompts(trace: Trace) -> list[Keys]:
    if isinstance(trace, (str, Path)):
        return list(block_keys(trace))
    return [tuple(keys) for keys in trace]


def _hit_rate(
    prompts: Sequence[Keys], num_blocks: int | None, eviction: str | Callable[[], Eviction]
) -> float:
    if num_blocks is None:
        num_blocks = len(set(chain.from_iterable(prompts)))
    elif isinstance(num_blocks, bool) or not isinstance(num_blocks, int) or num_blocks < 1:
        raise InvalidConfig(f"num_blocks={num_blocks!r} must be a positive integer, or None")
    kept = [keys[:num_blocks] for keys in prompts]
    rule = _rule(eviction, kept)
    pool = BlockPool(num_blocks, eviction=rule)
    num_hits = num_seen = 0
    for keys in kept:
        num_seen += len(keys)
        if isinstance(rule, FarthestUse):
            rule.now = num_seen - 1
        num_hits += _serve(pool, keys)
    total = sum(map(len, prompts))
    return num_hits / total if total else 0.0


def _serve(pool: BlockPool, keys: Keys) -> int:
    """Look a prompt up, compute what is missing, give everything back; return blocks found."""
    held = []
    for key in keys:
        block_id = pool.find(key)
        if block_id is None:
            break
        held.append(block_id)
    num_hits = len(held)
    pool.share(held, "")
    held += pool.take(len(keys) - num_hits, "")
    for block_id, key in zip(held[num_hits:], keys[num_hits:], strict=True):
        pool.set_name(block_id, key)
    pool.release(reversed(held), "")
    return num_hits


def _rule(eviction: str | Callable[[], Eviction], prompts: Sequence[Keys]) -> Eviction | None:
    """Return a new strategy; None is the pool's own rule."""
    if callable(eviction):
        return eviction()
    if eviction == "belady":
        uses: dict[bytes, list[int]] = {}
        for moment, key in enumerate(chain.from_iterable(prompts)):
            uses.setdefault(key, []).append(moment)
        return FarthestUse(uses)
    rules = {"lru": None, "fifo": FirstIn, "lfu": LeastUsed}
    if eviction not in rules:
        raise InvalidConfig(f"eviction={eviction!r} is not one of {', '.join(EVICTIONS)}")
    rule = rules[eviction]
    return None if rule is None else rule()
