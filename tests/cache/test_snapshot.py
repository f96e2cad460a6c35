from __future__ import annotations

import dataclasses

import pytest

from tests.builders import make_engine, params


def test_a_block_snapshot_agrees_with_the_pool_and_stays_as_it_was():
    engine = make_engine(num_blocks=8, block_size=4)
    request = engine.add([1, 2, 3, 4, 5, 6], params(max_tokens=3))
    engine.step()
    snapshot = engine.block_snapshot()
    pool = engine.cache.pool
    assert snapshot.num_blocks == 8
    assert snapshot.ref_counts == [pool.ref_count(i) for i in range(8)]
    assert snapshot.names == [pool.name(i) for i in range(8)]
    assert snapshot.tables == {request.id: engine.cache.table(request.id)}
    assert snapshot.num_computed_tokens == {request.id: 6}
    assert snapshot.step == engine.step_number
    before = dataclasses.asdict(snapshot)
    engine.run_until_idle()
    assert dataclasses.asdict(snapshot) == before
    assert not engine.block_snapshot().tables
    assert set(engine.block_snapshot().last_used_s) == {
        i for i in range(8) if engine.cache.pool.is_cached(i)
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.step = 7  # type: ignore[misc]
