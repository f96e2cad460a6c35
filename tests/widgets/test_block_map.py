from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tests.builders import make_engine, params
from tests.widgets.synthetic import SyntheticRecord, SyntheticRun
from toolkit.engine import Engine
from toolkit.errors import ToolkitError
from toolkit.record import Record
from toolkit.widgets import BlockMap
from toolkit.widgets.block_cells import COLUMNS, cells_of_frame, cells_of_snapshot


@pytest.fixture
def engine() -> Engine:
    """Three requests in flight: two share a prefix, one has ended and left cached blocks."""
    engine = make_engine(num_blocks=24, block_size=4, recorder=Record())
    engine.add([9, 8, 7, 6, 5, 4], params(max_tokens=1))
    engine.run_until_idle()
    engine.add([1, 2, 3, 4, 5, 6, 7, 8, 9], params(max_tokens=20))
    engine.step()
    engine.add([1, 2, 3, 4, 5, 6, 7, 8, 30], params(max_tokens=20))
    engine.step()
    return engine


def test_live_cells_are_those_of_the_pool(engine: Engine):
    frame = BlockMap(engine).data
    pool = engine.cache.pool
    assert tuple(frame.columns) == COLUMNS
    assert list(frame["ref_count"]) == [pool.ref_count(i) for i in range(24)]
    assert list(frame["state"] == "cached") == [pool.is_cached(i) for i in range(24)]
    names = [pool.name(i) for i in range(24)]
    assert list(frame["hash"].fillna("")) == [name.hex()[:12] if name else "" for name in names]
    for request_id, block_ids in engine.cache.tables.items():
        assert all(request_id in frame["request_ids"][i] for i in block_ids)
        computed = engine.scheduler.get(request_id).num_computed_tokens
        assert sum(frame["num_filled"][block_ids]) == computed
    assert frame["held_steps"].isna().all()
    assert (frame["ref_count"] > 1).sum() == 2


def test_a_table_of_blocks_and_a_snapshot_of_them_draw_the_same(engine: Engine):
    cells = cells_of_snapshot(engine.block_snapshot())
    again = cells_of_frame(cells.frame(), step=cells.step, block_size=4)
    pd.testing.assert_frame_equal(again.frame(), cells.frame())
    assert (again.colours() == cells.colours()).all()
    assert again.counts() == cells.counts() == {"held": 4, "shared": 2, "cached": 1, "empty": 19}


def test_an_empty_pool_has_cells_too(open_page: Any):
    page = open_page(BlockMap(make_engine(num_blocks=5, recorder=Record())))
    assert page.newest("cells").meta["counts"] == {"held": 0, "shared": 0, "cached": 0, "empty": 5}
    assert page.newest("cells").arrays["state"].tolist() == [0] * 5


def test_a_page_gets_the_cells_as_arrays(engine: Engine, open_page: Any):
    frame = open_page(BlockMap(engine)).newest("cells")
    meta, arrays = frame.meta, frame.arrays
    assert meta["step"] == engine.step_number
    assert meta["follows"]
    assert "engine.record.level = 'blocks'" in meta["note"]
    ends = arrays["ends"]
    for request_id, block_ids in engine.cache.tables.items():
        for block in block_ids:
            start = ends[block - 1] if block else 0
            names = [meta["owners"][i] for i in arrays["holders"][start : ends[block]]]
            assert request_id in names


def test_a_live_map_follows_the_engine_and_is_still_while_it_is(engine: Engine, open_page: Any):
    page = open_page(BlockMap(engine))
    step = engine.step().step
    assert page.wait("cells").meta["step"] == step
    page.read()
    with pytest.raises(AssertionError, match="no frame"):
        page.wait("cells", timeout_s=0.5)
    engine.run_until_idle()
    while page.wait("cells").meta["counts"]["held"]:  # until a frame of the end; else it times out
        pass


def test_a_step_can_be_chosen_and_the_newest_followed_again(open_page: Any):
    page = open_page(BlockMap(SyntheticRun(num_requests=5, num_steps=50)))
    newest = page.newest("cells")
    assert [newest.meta[name] for name in ("oldest", "step", "newest")] == [0, 49, 49]
    page.say("step", step=7)
    chosen = page.wait("cells")
    assert chosen.meta["step"] == 7
    assert not chosen.meta["follows"]
    assert (chosen.arrays["state"] != newest.arrays["state"]).any()
    page.say("step", step=10**6)
    assert page.wait("cells").meta["step"] == 49
    page.say("follow")
    assert page.wait("cells").meta["follows"]


def test_hovering_tells_what_happened_to_a_block(open_page: Any):
    page = open_page(BlockMap(SyntheticRun(num_requests=5, num_steps=50)))
    page.say("history", block=3)
    told = page.wait("history").meta
    assert told == {"block": 3, "rows": ["new by req-1: step 0 to step 5, finished"]}


def test_a_record_without_blocks_says_how_to_get_them():
    class Plain(SyntheticRecord):
        level = "tokens"

    class Run:
        record = Plain(num_requests=3)

    block_map = BlockMap(Run())
    assert "engine.record.level = &#x27;blocks&#x27;" in block_map.to_html()
    with pytest.raises(ToolkitError, match="level"):
        _ = block_map.data
    with pytest.raises(ToolkitError, match="level"):
        block_map.show(3)


def test_pictures_show_the_blocks(engine: Engine):
    block_map = BlockMap(engine)
    assert block_map.to_png().startswith(b"\x89PNG")
    html = block_map.to_html()
    assert "24 blocks of 4 tokens, 4 held (2 shared), 1 cached, 19 empty" in html
    assert len(html) < 20_000
    assert repr(block_map) == f"BlockMap(24 blocks, step {engine.step_number})"


def test_ten_thousand_blocks_are_sent_in_less_than_a_megabyte(open_page: Any):
    run = SyntheticRun(num_requests=30, num_blocks=10_000)
    page = open_page(BlockMap(run))
    assert sum(array.nbytes for array in page.newest("cells").arrays.values()) < 1_000_000
    assert len(BlockMap(run)._static()) < 100_000
