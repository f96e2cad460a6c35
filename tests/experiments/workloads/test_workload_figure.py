"""The figure of a workload: it shows the load, and its data are what it shows."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.experiments import AtOnce, Closed, Fixed, Gamma, Poisson, ShareGPT, Workload


def test_the_figure_carries_what_it_draws() -> None:
    w = Workload(Poisson(5.0), ShareGPT(), num_requests=3000)
    figure = w.plot()
    data = figure.data
    assert list(data) == ["panel", "series", "x", "y"]
    arrivals = data[data.panel == "arrivals"]
    width_s = arrivals.x.diff().dropna()
    assert np.allclose(width_s, width_s.iloc[0])
    assert arrivals.y.sum() * width_s.iloc[0] == pytest.approx(3000)
    lengths = data[data.panel == "lengths"]
    for name in ("prompt", "output"):
        assert lengths[lengths.series == name].y.sum() == pytest.approx(100)
    gaps = data[(data.panel == "gaps") & (data.series == "this load")]
    assert gaps.y.max() == 1.0
    assert (np.diff(gaps.y) <= 0).all()
    # Exponential gaps lie on the line of exponential gaps.
    middle = gaps[gaps.y > 0.05]
    assert middle.y.to_numpy() == pytest.approx(np.exp(-middle.x * 5.0).to_numpy(), abs=0.03)


def test_the_axes_say_what_they_are() -> None:
    figure = Workload(Gamma(5.0, 0.2), ShareGPT(), num_requests=300).plot()
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [
        ("time (s)", "requests/s"),
        ("gap (s)", "share of longer gaps"),
        ("tokens", "requests (%)"),
    ]


@pytest.mark.parametrize("arrivals", [AtOnce(), Closed(4)])
def test_a_load_without_gaps_is_drawn_too(arrivals: AtOnce | Closed) -> None:
    figure = Workload(arrivals, Fixed(7, 3), num_requests=20).plot()
    assert set(figure.data.panel) == {"lengths"}
    assert figure.to_png().startswith(b"\x89PNG")
