"""Where every block stood after every step, from the tables alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.builders import make_engine, params
from toolkit.beam_search_params import BeamSearchParams
from toolkit.errors import RecordError
from toolkit.record import Record


@pytest.mark.parametrize("seed", range(12))
def test_the_tables_know_where_every_block_stood(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    engine = make_engine(
        recorder=Record(level="blocks"),
        num_blocks=rng.randint(6, 14),
        max_num_seqs=4,
        max_num_batched_tokens=8,
    )
    for _ in range(8):
        prompt = [rng.randrange(3) for _ in range(rng.randint(1, 14))]
        beam = BeamSearchParams(beam_width=2, max_tokens=3)
        sampled = params(rng.randint(1, 8), n=rng.choice([1, 1, 2, 3]))
        engine.add(prompt, beam if rng.random() < 0.15 else sampled)
    seen = {}
    pool = engine.cache.pool
    while engine.scheduler.has_work:
        step = engine.step().step
        holders = {
            block_id: {name for name, table in engine.cache.tables.items() if block_id in table}
            for block_id in range(pool.num_blocks)
        }
        idle = ["cached" if pool.is_cached(i) else "empty" for i in range(pool.num_blocks)]
        seen[step] = [("held" if holders[i] else idle[i], holders[i]) for i in holders]
    loaded = Record.load(engine.record.save(tmp_path / "run.zip"))
    for step, expected in seen.items():
        blocks = loaded.blocks_at(step)
        told = zip(blocks["state"], map(set, blocks["request_ids"]), strict=True)
        assert list(told) == expected, step


def test_blocks_can_be_followed_from_the_middle_of_a_run_on():
    engine = make_engine(recorder=Record(), num_blocks=12)
    request = engine.add([1] * 10, params(12))
    engine.step()
    engine.step()
    engine.record.level = "blocks"
    engine.step()  # in a block that it had
    engine.run_until_idle()
    blocks = engine.record.blocks
    assert set(blocks["request_id"]) == {request.id}
    assert list(blocks["num_filled"]) == [4, 4, 1]  # 21 tokens were computed, 12 before
    assert set(blocks["end_why"]) == {"finished"}
    with pytest.raises(RecordError, match="since the pool was empty"):
        engine.record.blocks_at(3)
