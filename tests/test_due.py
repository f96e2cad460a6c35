"""Nothing enters a load that would leave it waiting for ever, or out of order."""

from __future__ import annotations

import math

import pytest

from toolkit.due import DueLine
from toolkit.errors import InvalidConfig


@pytest.mark.parametrize("due_s", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("after", [-1, 0])
def test_a_time_that_is_none_is_refused(due_s: float, after: int):
    line = DueLine[str]()
    with pytest.raises(InvalidConfig, match=r"request 1: due_s=(nan|-?inf) is no time"):
        line.add(1, "never", due_s=due_s, after=after)
    assert line.next_s == math.inf
    assert line.num_following == 0


def test_what_follows_itself_is_refused():
    line = DueLine[str]()
    with pytest.raises(InvalidConfig, match="request 3 follows itself"):
        line.add(3, "snake", due_s=0.0, after=3)
    assert line.num_following == 0
