"""PoolingParams: what it accepts, and what a request that pools may read from the cache."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit import PoolingParams
from toolkit.errors import InvalidParameter


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pooling", "max"),
        ("pooling", None),
        ("normalize", 1),
        ("dimensions", 0),
        ("dimensions", -3),
        ("dimensions", True),
        ("dimensions", 2.0),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any):
    with pytest.raises(InvalidParameter, match=field) as caught:
        PoolingParams(**{field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("pooling", "num_pooled", "reusable"),
    [("last", 0, 9), ("last", 4, 9), ("mean", 0, 0), ("mean", 4, 4), ("cls", 0, 0), ("cls", 4, 9)],
)
def test_the_cache_is_read_where_no_state_is_wanted_any_more(
    pooling: Any, num_pooled: int, reusable: int
):
    assert PoolingParams(pooling=pooling).num_reusable_tokens(num_pooled, 9) == reusable
