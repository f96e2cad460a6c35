"""Which requests keep their limits, and what nobody can say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.record.tables import answers
from toolkit.errors import InvalidParameter
from toolkit.record.limits import keeps_limits
from toolkit.record.summary import summarise


def test_an_answer_of_one_token_has_no_gap_that_could_be_too_long():
    found = summarise(*answers([0.0], [0.1], [[]]), slo={"tpot_s": 0.001, "itl_max_s": 0.001})
    assert found.loc["goodput_share", "mean"] == 1.0
    assert found.loc["tpot_s", "num"] == 0


def test_an_answer_that_came_in_one_piece_has_none_either():
    requests, _ = answers([0.0], [0.1], [[]])
    requests["num_output_tokens"] = 8
    assert keeps_limits(requests, {"itl_max_s": 0.001}).tolist() == [True]


def test_a_limit_on_what_was_not_measured_is_refused():
    requests, _ = answers([0.0] * 3, [0.1] * 3, [[0.5], [0.5], []])
    requests.loc[[0, 2], "itl_max_s"] = np.nan
    with pytest.raises(InvalidParameter, match="itl_max_s was not measured of 1 answers"):
        keeps_limits(requests, {"ttft_s": 1.0, "itl_max_s": 1.0})
    requests.loc[0, "status"] = "failed"  # keeps none anyway
    assert keeps_limits(requests, {"itl_max_s": 1.0}).tolist() == [False, True, True]
