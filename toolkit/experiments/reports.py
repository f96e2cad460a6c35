"""One page about a folder of results: figures, verdicts, tables, and how to run them again."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from toolkit.errors import InvalidConfig
from toolkit.experiments.catalogue import Experiment, Result, find
from toolkit.experiments.claims.judging import VerdictTable, verdict_table
from toolkit.experiments.claims.table import CLAIMS
from toolkit.experiments.runs.results import Run
from toolkit.files import from_home, ready_to_write

__all__ = ["report"]

_TEMPLATE = Path(__file__).with_name("report.html")
_FIGURE = "figure.png"
_MOST_ROWS = 60
_LOAD = "load_average_1_min"  # of a moment, not of a machine
# Of the settings of a run over HTTP, those that are options of it, by their names there.
_OPTIONS = {
    **{name: name for name in "model api prompts vocab_size ignore_eos extra_body".split()},
    **{name: name for name in "max_in_flight warmup timeout_s".split()},
    "num_processes": "processes",
}


def report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write one HTML page that needs nothing else, and return its path.

    Args:
        folder: Holds results of experiments in its subfolders, as ``toolkit experiment run
            --output`` writes them, or saved runs (``run-*.zip``), there or in the folder itself.
        output: The page; by default ``report.html`` in the folder.

    Raises:
        InvalidConfig: the folder holds neither, or a result that is damaged.
        RecordError: a run's file is damaged.
    """
    folder = from_home(folder)
    places = sorted(place for place in folder.glob("*/") if Result.is_in(place))
    files = sorted([*folder.glob("run-*.zip"), *folder.glob("*/run-*.zip")])
    if not places and not files:
        raise InvalidConfig(
            f"{folder} holds no results; `toolkit experiment run NAME --output {folder}` makes one"
        )
    results = [Result.load(place) for place in places]
    runs = {str(path.relative_to(folder)): Run.load(path) for path in files}
    measurable = {claim_id for result in results for claim_id in find(result.name).CLAIMS}
    verdicts = verdict_table(results, [claim for claim in CLAIMS if claim.id in measurable])
    parts = [_part(result, place) for result, place in zip(results, places, strict=True)]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    page = template.render(
        title=f"Experiments in {folder.resolve().name}",
        summary=verdicts.summary() if results else f"{len(runs)} runs",
        parts=[*parts, *(_run_part(name, run) for name, run in runs.items())],
        verdicts={name: _shown_of(verdicts, name) for name in verdicts["experiment"].unique()},
        environments=_environments([*results, *runs.values()], [*(r.name for r in results), *runs]),
        most_rows=_MOST_ROWS,
    )
    target = ready_to_write(folder / "report.html" if output is None else output)
    target.write_text(page, encoding="utf-8")
    return target


def _shown_of(verdicts: VerdictTable, name: str) -> str:
    """Return an experiment's verdicts as HTML, which stands in the page as it is."""
    return VerdictTable(verdicts[verdicts["experiment"] == name])._repr_html_()


def _part(result: Result, place: Path) -> dict[str, Any]:
    """Return what the page shows of an experiment."""
    experiment = find(result.name)
    saved = place / _FIGURE
    png = saved.read_bytes() if saved.is_file() else _drawn(experiment, result, place)
    return {
        "name": result.name,
        "title": experiment.TITLE,
        "text": f"toolkit experiment run {result.name} --size {result.size} --seed {result.seed}",
        "figure": b64encode(png).decode(),
        "tables": {f"{name}.csv": _shown(table) for name, table in result.data.items()},
    }


def _drawn(experiment: Experiment, result: Result, place: Path) -> bytes:
    try:
        return bytes(experiment.plot(result).to_png())
    except Exception as error:  # pandas and matplotlib each have several for tables of others
        raise InvalidConfig(
            f"the tables in {place} cannot be drawn ({error!r:.200}); run it again, or put its "
            f"{_FIGURE} there"
        ) from error


def _run_part(name: str, run: Run) -> dict[str, Any]:
    """Return what the page shows of a run: what was asked of what, its metrics, its picture."""
    settings = pd.DataFrame(run.settings.items(), columns=["setting", "value"]).astype(str)
    return {
        "name": name,
        "title": name,
        "text": "\n\n".join(filter(None, (repr(run), _asks_again(name, run)))),
        "figure": b64encode(run.plot().to_png()).decode(),
        "tables": {
            "metrics": _shown(pd.DataFrame(run.summary().reset_index())),
            "settings": _shown(settings),
        },
    }


def _asks_again(name: str, run: Run) -> str:
    """Return the Python that asks for a saved run's workload again; empty if that was not kept."""
    if run.workload is None:
        return ""
    target, options = "...", ""  # an engine or a machine, which the settings describe
    if run.settings.get("on") == "server":
        target = repr(run.environment.get("url"))
        options = "".join(
            f", {_OPTIONS[name]}={value!r}"
            for name, value in run.settings.items()
            if name in _OPTIONS and value not in (None, {})
        )
    return f"experiments.run(Run.load({name!r}).workload, on={target}{options})"


def _shown(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "columns": list(table.columns),
        "rows": table.head(_MOST_ROWS).to_numpy(object).tolist(),
        "num_rows": len(table),
    }


def _environments(results: Sequence[Result | Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the distinct surroundings of the results, each with the names that ran in it."""
    found: list[dict[str, Any]] = []
    for result, name in zip(results, names, strict=True):
        facts = {fact: told for fact, told in result.environment.items() if fact != _LOAD}
        place = next((place for place in found if place["facts"] == facts), None)
        if place is None:
            place = {"facts": facts, "names": [], "loads": []}
            found.append(place)
        place["names"].append(name)
        place["loads"].append(result.environment.get(_LOAD))
    for place in found:
        loads = [f"{load:.1f}" for load in place.pop("loads") if load is not None]
        if loads:
            place["facts"][_LOAD] = ", ".join(loads)
    return found
