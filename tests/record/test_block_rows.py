"""Every column of the blocks table against a ledger that is kept with pencil and paper."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pytest

from tests.builders import make_engine, params
from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine import Engine
from toolkit.record import Record

WHY = {"finished": "finished", "preempted": "preempted", "aborted": "aborted", "failed": "aborted"}


class Pencil:
    """Hears of every change to a block before the recorder does, and looks back at all of them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.next = engine.cache.pool.observer
        self.rows: list[dict[str, Any]] = []
        engine.cache.pool.observer = self

    def open(self, block_id: int, request_id: str | None = None) -> list[dict[str, Any]]:
        return [
            row
            for row in self.rows
            if row["block_id"] == block_id
            and row["times"] > 0
            and request_id in (None, row["request_id"])
        ]

    def begin(self, block_id: int, request_id: str, how: str) -> None:
        self.rows.append(
            {
                "block_id": block_id,
                "request_id": request_id,
                "how": how,
                "end_why": None,
                "num_hits": 0,
                "times": 1,
                "hash": None,
                "num_filled": None,
            }
        )

    def writer(self, block_id: int) -> dict[str, Any]:
        wrote = ("new", "copied")
        return next(
            row
            for row in reversed(self.rows)
            if row["block_id"] == block_id and row["how"] in wrote
        )

    is_listening = True

    def block_taken(self, block_id: int, request_id: str) -> None:
        self.begin(block_id, request_id, "new")
        self.next.block_taken(block_id, request_id)

    def block_shared(self, block_id: int, request_id: str) -> None:
        own = self.open(block_id, request_id)
        if own:
            own[0]["times"] += 1
        else:
            others = self.open(block_id)
            self.writer(block_id)["num_hits"] += 1
            self.begin(block_id, request_id, "shared" if others else "reused")
            self.rows[-1]["hash"] = self.writer(block_id)["hash"]
        self.next.block_shared(block_id, request_id)

    def block_copied(self, source_id: int, target_id: int, request_id: str) -> None:
        self.open(target_id, request_id)[0]["how"] = "copied"
        self.next.block_copied(source_id, target_id, request_id)

    def block_cached(self, block_id: int) -> None:
        name = self.engine.cache.pool.name(block_id)
        assert name is not None
        self.writer(block_id)["hash"] = name.hex()[:12]
        self.next.block_cached(block_id)

    def block_evicted(self, block_id: int, age_s: float, cause: str) -> None:
        held = [row for row in self.rows if row["block_id"] == block_id]
        assert not self.open(block_id)
        max(held, key=lambda row: row["ended"])["end_why"] = "evicted"
        self.next.block_evicted(block_id, age_s, cause)

    def block_freed(self, block_id: int, request_id: str) -> None:
        (row,) = self.open(block_id, request_id)
        row["times"] -= 1
        if not row["times"]:
            request = self.engine.scheduler.get(request_id)
            status = "aborted" if request is None else request.status.value
            row["end_why"] = WHY.get(status, "replaced")
            row["ended"] = sum("ended" in other for other in self.rows)
        self.next.block_freed(block_id, request_id)

    def look(self) -> None:
        """Measure how full the blocks are that the unfinished hold."""
        size = self.engine.cache.block_size
        for request in self.engine.scheduler.unfinished:
            for index, block_id in enumerate(self.engine.cache.table(request.id)):
                full = min(size, request.num_computed_tokens - index * size)
                self.open(block_id, request.id)[0]["num_filled"] = full


def mixed_run(seed: int) -> tuple[Pencil, pd.DataFrame, list[Any]]:
    rng = random.Random(seed)
    engine = make_engine(
        recorder=Record(level="blocks"),
        num_blocks=rng.randint(6, 14),
        max_num_seqs=4,
        max_num_batched_tokens=8,
    )
    pencil = Pencil(engine)
    requests = []
    for _ in range(10):
        prompt = [rng.randrange(2) for _ in range(rng.randint(1, 14))]
        beam = BeamSearchParams(beam_width=2, max_tokens=3)
        sampled = params(rng.randint(1, 8), n=rng.choice([1, 1, 2, 3]))
        requests.append(engine.add(prompt, beam if rng.random() < 0.15 else sampled))
        for _ in range(rng.randrange(4)):
            if engine.scheduler.has_work:
                engine.step()
                pencil.look()
        if rng.random() < 0.1:
            engine.abort(rng.choice(requests))
    while engine.scheduler.has_work:
        engine.step()
        pencil.look()
    return pencil, engine.record.blocks, [one for r in requests for one in r.samples]


@pytest.mark.parametrize("seed", range(15))
def test_every_holding_is_told_as_it_was(seed: int):
    pencil, blocks, samples = mixed_run(seed)
    told = blocks[["block_id", "request_id", "how", "end_why", "num_hits", "hash"]]
    expected = pd.DataFrame(pencil.rows, dtype=object)[list(told.columns)]
    pd.testing.assert_frame_equal(told.astype(object), expected)
    # Of one that went on through the step in which it was last seen, it may have grown since.
    for row, filled in zip(pencil.rows, blocks["num_filled"], strict=True):
        if row["num_filled"] is not None and row["end_why"] != "finished":
            assert filled >= row["num_filled"]
    for sample in samples:
        last = blocks[(blocks["request_id"] == sample.id) & ~blocks["end_why"].eq("preempted")]
        if sample.beam is None and sample.finish_reason == "length" and not sample.num_preemptions:
            last = last[last["end_why"] != "replaced"]
            assert last["num_filled"].sum() == sample.num_computed_tokens


def test_the_runs_meet_every_way_to_hold_and_to_lose_a_block():
    blocks = pd.concat([mixed_run(seed)[1] for seed in range(15)])
    assert set(blocks["how"]) == {"new", "shared", "copied", "reused"}
    assert set(blocks["end_why"]) >= {"finished", "preempted", "evicted", "aborted", "replaced"}
    assert (blocks["num_hits"] > 1).any()
