"""One engine, nine results, in small: which way each mistake points must hold at any size."""

from __future__ import annotations

import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import how_benchmarks_lie as experiment
from toolkit.simulate import Machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiment._NUM_REQUESTS, "quick", 120)
        patch.setattr(experiment, "_NUM_WARM", 40)
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
    # The limit makes requests wait, and whoever counts from sending does not see it.
    assert sent["ttft_s_by_honest"] < 1.5
    assert due["ttft_s_by_honest"] > 3
    assert sent["output_tokens_per_s"] == due["output_tokens_per_s"]


def test_the_warm_cache_reports_as_many_requests_as_the_honest_load() -> None:
    bench = experiment._Bench(Machine("llama-3-8b", "H200"), 30, seed=0)
    reported = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "_NUM_WARM", 10)
        patch.setattr(experiment, "_numbers", lambda done: reported.append(done.requests))
        experiment._warm_cache(bench)
    (requests,) = reported
    assert requests["arrival_id"].tolist() == list(range(30))
    assert (requests["num_cached_tokens"] > 0).mean() > 0.9  # all but prompts below a block


def test_which_way_a_mistake_points_is_no_claim_and_seeds_are_measured(result) -> None:
    assert experiment.CLAIMS == ()
    assert result.measured == {}
    seeds, honest = result.data["seeds"], result.data["results"].iloc[0]
    assert seeds["seed"].tolist() == [0, 1, 2]
    assert seeds["ttft_s"].iloc[0] == honest["ttft_s"]
    assert seeds["ttft_s"].nunique() == 3


def test_the_figure_carries_what_it_draws(result) -> None:
    figure = experiment.plot(result)
    assert len(figure.data) == 9
    assert figure.to_png()[:4] == b"\x89PNG"


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="quick"):
        experiment.run("huge")
