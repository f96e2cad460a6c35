"""The style of figures: set for good, or for a while, or for one figure."""

from __future__ import annotations

import matplotlib
import pandas as pd
import pytest

from toolkit.experiments import plots

KEYS = ("figure.figsize", "font.size", "axes.spines.top")


def settings() -> list[object]:
    return [matplotlib.rcParams[key] for key in KEYS]


def test_paper_holds_until_the_end_of_its_block() -> None:
    before = settings()
    with plots.paper(width_in=3.3):
        assert matplotlib.rcParams["figure.figsize"][0] == pytest.approx(3.3)
        assert plots.figure().get_size_inches()[0] == pytest.approx(3.3)
    assert settings() == before


def test_paper_called_alone_holds_on() -> None:
    before = settings()
    undo = plots.paper(7.0)
    assert matplotlib.rcParams["figure.figsize"][0] == 7.0
    undo.close()
    assert settings() == before


def test_style_leaves_no_trace() -> None:
    before = settings()
    with plots.style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert settings() == before


def test_no_two_lines_look_alike() -> None:
    looks = [plots.look(i) for i in range(len(plots.COLOURS))]
    for part in zip(*looks, strict=True):
        assert len(set(part)) == len(looks)
    assert plots.look(len(looks)) == looks[0]


def test_a_figure_shows_itself_and_belongs_to_no_window() -> None:
    fig = plots.figure()
    assert isinstance(fig.data, pd.DataFrame)
    assert fig._repr_png_().startswith(b"\x89PNG")
    assert "manager" not in vars(fig.canvas) or fig.canvas.manager is None


@pytest.mark.parametrize(("low", "high"), [(0.028, 0.047), (0.3, 1.1), (0.06, 40.0), (1e-3, 1e4)])
def test_a_logarithmic_axis_has_some_plain_numbers_however_much_it_spans(
    low: float, high: float
) -> None:
    with plots.style():
        axes = plots.figure().subplots()
        axes.plot([1, 2], [low, high])
        axes.set_yscale("log")
        plots.plain_ticks(axes.yaxis)
    lowest, highest = axes.get_ylim()
    shown = [place for place in axes.yaxis.get_majorticklocs() if lowest <= place <= highest]
    assert 3 <= len(shown) <= 12
    labels = axes.yaxis.get_major_formatter().format_ticks(shown)
    assert [float(label.replace(",", "")) for label in labels] == pytest.approx(shown)
    assert ("1,000" in labels) == (high > 1_000)
