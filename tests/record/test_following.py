"""A record is followed by what is new in it, and by the columns that are wanted."""

from __future__ import annotations

import pytest

from tests.builders import make_engine, params
from toolkit.record import Record


def test_only_the_wanted_columns_come_in_the_order_of_the_table() -> None:
    engine = make_engine(recorder=Record())
    engine.add([1, 2, 3], params(4))
    engine.run_until_idle()
    rows, cursor = engine.record.since("tokens", 1, ("sent_s", "index"))
    assert list(rows) == ["index", "sent_s"]
    assert cursor == 4
    assert rows.sent_s.tolist() == engine.record.tokens.sent_s.tolist()[1:]


def test_the_wait_for_the_first_token_is_found_wherever_the_request_is() -> None:
    engine = make_engine(recorder=Record(), max_num_seqs=1, num_blocks=64)
    for _ in range(300):  # more than are looked through first
        engine.add([1], params(1))
    engine.run_until_idle()
    engine.add([1, 2, 3], params(4))
    engine.add([4, 5, 6], params(4))
    while not engine.record.requests.first_token_s.notna().iloc[300]:
        engine.step()
    requests = engine.record.requests
    found = engine.record.ttft_s([*requests.request_id, "nobody"])
    known = requests[requests.ttft_s.notna()]
    assert len(known) == 301  # the last one waits
    assert found == pytest.approx(dict(zip(known.request_id, known.ttft_s, strict=True)))
    frozen = engine.record.freeze().ttft_s(requests.request_id)
    assert frozen == pytest.approx(found)
