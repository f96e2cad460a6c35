"""One engine, nine results, in small: which way each mistake points must hold at any size."""

from __future__ import annotations

import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import how_benchmarks_lie as experiment
from toolkit.experiments.claims.table import find_claim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiment._NUM_REQUESTS, "quick", 120)
        patch.setattr(experiment, "_NUM_WARM", 120)
        patch.setattr(experiment, "_FEW", 20)
        return experiment.run(progress=False)


def test_each_mistake_is_measured_against_the_honest_result(result) -> None:
    table = result.data["results"].set_index("mistake")
    assert table.index[0] == "honest"
    assert len(table) == 9
    assert table["ttft_s"].gt(0).all()
    assert table["ttft_s_by_honest"].iloc[0] == table["output_tokens_per_s_by_honest"].iloc[0] == 1
    assert table.at["a mean", "ttft_s"] < table.at["honest", "ttft_s"]
    assert table.at["warm cache", "ttft_s"] < table.at["honest", "ttft_s"]


def test_what_a_limited_client_leaves_out_is_the_wait_before_it_sends(result) -> None:
    table = result.data["results"].set_index("mistake")
    sent, due = table.loc["counted from sending"], table.loc["client limit, all counted"]
    assert sent["ttft_s"] < due["ttft_s"]
    assert sent["output_tokens_per_s"] == due["output_tokens_per_s"]


def test_both_claims_are_measured(result) -> None:
    assert set(result.measured) == set(experiment.CLAIMS)
    for claim, measured in result.measured.items():
        assert find_claim(claim).judge(measured).verdict == "reproduced"


def test_the_figure_carries_what_it_draws(result) -> None:
    figure = experiment.plot(result)
    assert len(figure.data) == 9
    assert figure.to_png()[:4] == b"\x89PNG"


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="quick"):
        experiment.run("huge")
