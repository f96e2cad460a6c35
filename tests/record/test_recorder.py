"""Tables of a record: what clients may not make of them."""

from __future__ import annotations

from tests.builders import make_engine
from toolkit.record import Record
from toolkit.record.frames import MAX_TAG_COLUMNS
from toolkit.request import SamplingParams


def test_only_the_most_frequent_tags_have_columns():
    engine = make_engine()
    record = Record()
    record.attach(engine)
    for i in range(2 * MAX_TAG_COLUMNS):
        tags = {f"invented {i}": i, "tenant": "a"}
        engine.add([1, 2], SamplingParams(max_tokens=1), tags=tags)
    columns = [name for name in record.requests.columns if name.startswith("tags.")]
    assert len(columns) == MAX_TAG_COLUMNS
    assert "tags.tenant" in columns
