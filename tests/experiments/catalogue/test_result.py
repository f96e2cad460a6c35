"""A result comes back from its folder as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import EXPERIMENTS, find
from toolkit.experiments.catalogue.basis import basis
from toolkit.experiments.catalogue.result import Result, means
from toolkit.experiments.claims.table import CLAIMS


def a_result() -> Result:
    table = pd.DataFrame({"rate": [0.1, 1 / 3], "policy": ["fcfs", "fair"], "num": [3, 4]})
    samples = {"a-claim": [0.0, 2 / 3]}
    return Result(
        "one", "quick", {"curve": table}, means(samples), {"a-claim": "why"}, 7, samples=samples
    )


def test_a_saved_result_is_loaded_as_it_was(tmp_path: Path) -> None:
    result = a_result()
    assert not Result.is_in(tmp_path / "one")
    loaded = Result.load(result.save(tmp_path / "one"))
    assert Result.is_in(tmp_path / "one")
    assert loaded.measured == result.measured
    assert loaded.reasons == result.reasons
    assert (loaded.name, loaded.size, loaded.seed) == ("one", "quick", 7)
    assert loaded.environment == result.environment
    assert loaded.samples == result.samples
    assert loaded.basis == result.basis == basis()
    pd.testing.assert_frame_equal(loaded.data["curve"], result.data["curve"], check_exact=True)


def test_a_mean_is_that_of_the_seeds_and_unknown_where_one_is() -> None:
    assert means({"one": [1.0, 3.0]}) == {"one": 2.0}
    assert math.isnan(means({"one": [1.0, math.nan]})["one"])


def test_a_file_that_says_nothing_of_its_basis_has_none(tmp_path: Path) -> None:
    file = a_result().save(tmp_path / "one") / "experiment.json"
    facts = json.loads(file.read_text())
    del facts["basis"], facts["samples"]
    file.write_text(json.dumps(facts))
    loaded = Result.load(tmp_path / "one")
    assert loaded.basis == loaded.samples == {}


DEEP = pytest.param("[" * 100_000, id="nested too deeply")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tables": ["gone"]}', '{"tables": 3}', DEEP])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfig, match="holds no result of an experiment"):
        Result.load(tmp_path)
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(InvalidConfig, match="holds no result of an experiment"):
        Result.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ["one"]},
        {"size": "huge"},
        {"seed": "7"},
        {"tables": "curve"},
        {"tables": [1]},
        {"measured": [1]},
        {"measured": "a text"},
        {"measured": {"a-claim": "seven"}},
        {"measured": {"a-claim": None}},
        {"measured": {"a-claim": True}},
        {"reasons": [1]},
        {"reasons": {"a-claim": 1}},
        {"environment": [1]},
    ],
)
def test_facts_that_are_no_results_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = a_result().save(tmp_path) / "experiment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(InvalidConfig, match="holds no result of an experiment"):
        Result.load(tmp_path)


def test_a_cell_shows_what_there_is_and_how_to_see_the_verdicts() -> None:
    result = Result(
        "toy", "quick", {"<curve>": pd.DataFrame({"rate": [1, 2]})}, {"vllm-orca-max-batch": 7.0}
    )
    html = result._repr_html_()
    assert "data[&quot;&lt;curve&gt;&quot;], 2 rows" in html
    assert "verdict_table([result])" in html
    assert "verdict_table" not in Result("toy", "quick", {}, {})._repr_html_()


def test_every_module_of_the_catalogue_is_listed() -> None:
    import toolkit.experiments.catalogue as catalogue

    folder = Path(catalogue.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "\nTITLE = " in path.read_text()}
    assert set(EXPERIMENTS) == modules


def test_every_claim_that_an_experiment_names_exists_and_is_its_own() -> None:
    named = [claim_id for experiment in EXPERIMENTS.values() for claim_id in experiment.CLAIMS]
    assert len(named) == len(set(named))
    assert set(named) <= {claim.id for claim in CLAIMS}


def test_an_unknown_experiment_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="no experiment is called 'nothing'"):
        find("nothing")
