"""A record of any size, made up: for what drawing costs, and for shapes that a small run lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from toolkit.request import WAIT_CAUSES


class SyntheticRecord:
    """The tables that BlockMap and Timeline read, with seeded random contents."""

    level = "blocks"

    def __init__(
        self, *, num_requests: int, num_steps: int = 400, num_blocks: int = 256, seed: int = 0
    ) -> None:
        random = np.random.default_rng(seed)
        self.num_blocks, self.block_size = num_blocks, 16
        step_s = random.uniform(0.01, 0.03, num_steps)
        starts = np.cumsum(step_s) - step_s
        used = random.integers(num_blocks // 4, num_blocks, num_steps)
        self.steps = pd.DataFrame(
            {
                "step": np.arange(num_steps),
                "start_s": starts,
                "duration_s": step_s,
                "num_tokens": random.integers(1, 512, num_steps),
                "token_budget": 512,
                "blocks_used": used,
            }
        )
        arrival = np.sort(random.uniform(0, starts[-1] * 0.9, num_requests))
        self.requests = pd.DataFrame(
            {
                "request_id": [f"req-{i}" for i in range(num_requests)],
                "arrival_s": arrival,
                "ttft_s": random.exponential(0.2, num_requests),
                "finished_s": arrival + 2,
                "tags.tenant": random.choice(["a", "b", "c"], num_requests),
            }
        )
        self._spans = self._lives(random, arrival, starts)
        self._random = random

    def _lives(self, random: Any, arrival: np.ndarray, starts: np.ndarray) -> pd.DataFrame:
        rows = []
        for request, arrived_s in zip(self.requests["request_id"], arrival, strict=True):
            now_s = arrived_s
            kinds = ["tokenize", "wait", "prefill", "prefill", "decode", "preempted", "wait"]
            for kind in [*kinds, "prefill", "decode", "emit"]:
                end_s = now_s + random.exponential(0.05)
                step = int(np.searchsorted(starts, now_s))
                cause = random.choice(WAIT_CAUSES) if kind == "wait" else ""
                last = int(np.searchsorted(starts, end_s))
                rows.append((request, kind, cause, now_s, end_s, step, last, 16))
                now_s = end_s
        columns = "request_id kind cause start_s end_s start_step end_step num_tokens".split()
        return pd.DataFrame.from_records(rows, columns=columns)

    def spans(self, request_ids: list[str] | None = None) -> pd.DataFrame:
        if request_ids is None:
            return self._spans
        return self._spans[self._spans["request_id"].isin(request_ids)]

    def num_rows(self, table: str) -> int:
        return len(getattr(self, table))

    def since(self, table: str, cursor: int) -> tuple[pd.DataFrame, int]:
        rows = getattr(self, table)
        return rows.iloc[cursor:], len(rows)

    def tail(self, table: str, count: int) -> pd.DataFrame:
        return getattr(self, table).tail(count)

    def blocks_at(self, step: int) -> pd.DataFrame:
        random = np.random.default_rng(step)
        held = random.random(self.num_blocks)
        ids = [
            (f"req-{i % 23}", "req-7") if x > 0.95 else (f"req-{i // 5 % 23}",) if x > 0.4 else ()
            for i, x in enumerate(held)
        ]
        states = np.where(held > 0.4, "held", np.where(held > 0.25, "cached", "empty"))
        return pd.DataFrame(
            {
                "block_id": np.arange(self.num_blocks),
                "state": states,
                "request_ids": ids,
                "ref_count": list(map(len, ids)),
                "hash": [f"{i:064x}" if x > 0.3 else None for i, x in enumerate(held, 1 << 250)],
                "num_filled": random.integers(1, 17, self.num_blocks),
                "held_steps": random.integers(0, 80, self.num_blocks),
                "num_hits": random.integers(0, 3, self.num_blocks),
                "why": "new",
            }
        )

    @property
    def blocks(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "block_id": np.arange(self.num_blocks),
                "request_id": "req-1",
                "how": "new",
                "start_step": 0.0,
                "end_step": 5.0,
                "end_why": "finished",
            }
        )


class SyntheticRun:
    """What an experiment returns, as far as a widget looks: it has a record."""

    def __init__(self, **sizes: int) -> None:
        self.record = SyntheticRecord(**sizes)
