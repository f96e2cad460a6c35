"""A run is drawn from its table, which the figure carries."""

from __future__ import annotations

from toolkit import experiments
from toolkit.experiments import AtOnce, Constant, Fixed, Workload
from toolkit.simulate import Machine


def test_the_figure_has_three_panels_with_units_and_its_data() -> None:
    w = Workload(Constant(5.0), Fixed(64, 6), num_requests=30)
    run = experiments.run(w, on=Machine("opt-13b", "A100-40GB"), level="tokens")
    figure = run.plot()
    assert figure.data is run.requests
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [
        ("scheduled (s)", "latency (s)"),
        ("time (s)", "requests in the system"),
        ("latency (s)", "share that takes longer"),
    ]
    drawn = [line.get_label() for line in figure.axes[2].get_lines()]
    assert drawn == ["ITL", "TPOT", "TTFT", "E2E"]
    figure.canvas.draw()


def test_a_run_of_failures_is_drawn_too() -> None:
    w = Workload(AtOnce(), Fixed(5000, 6), num_requests=2)
    figure = experiments.run(w, on=Machine("opt-13b", "A100-40GB")).plot()
    figure.canvas.draw()
