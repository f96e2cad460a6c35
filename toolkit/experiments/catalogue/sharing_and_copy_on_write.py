"""How much memory do samples and beams of one prompt save by sharing its blocks?

Figure 15 of the PagedAttention paper (Kwon et al., SOSP 2023): the blocks that sharing spared, in
parts of those that the sequences would hold without. Scheduler and block pool are the real ones:
samples fork their prompt's table, beams fork their parent's at every token, and whoever writes to
a shared block gets a copy. Lengths are surrogates of Alpaca's and ShareGPT's. Which beam goes on is
up to chance (`toolkit.simulate.BeamRunner`), since no model is run.

For parallel samples there is a closed form too (`toolkit.simulate.closed_form_sharing`).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size, means
from toolkit.experiments.claims.table import find_claim
from toolkit.experiments.workloads.surrogates import Alpaca, ShareGPT
from toolkit.simulate import closed_form_sharing, progress_bar, saved_by_sharing

__all__ = ["CLAIMS", "TITLE", "plot", "run"]

TITLE = "How much memory do samples and beams share?"
DECODINGS = ("parallel", "beam")
WIDTHS = (2, 4, 6)
_LOADS = {"alpaca": Alpaca, "sharegpt": ShareGPT}
_CLAIMED = {"alpaca": WIDTHS, "sharegpt": (2, 6)}
CLAIMS = tuple(
    f"vllm-fig15-{load}-{decoding}-{width}"
    for load, widths in _CLAIMED.items()
    for decoding in DECODINGS
    for width in widths
)

_CELL = ["load", "decoding", "width"]
_PERCENTS = ["saved_percent", "closed_form_percent", "paper_percent"]
_GOLDEN = (5**0.5 - 1) / 2
# A beam takes many times as long as a sample.
_NUM_REQUESTS = {
    "quick": {
        "parallel": {"alpaca": 400, "sharegpt": 100},
        "beam": {"alpaca": 100, "sharegpt": 32},
    },
    "paper": {
        "parallel": {"alpaca": 4_000, "sharegpt": 1_000},
        "beam": {"alpaca": 1_000, "sharegpt": 320},
    },
}
_NUM_SEEDS = {"quick": 1, "paper": 3}


def run(size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
    """Serve both loads with each decoding and width, and look at the block tables as they go.

    Args:
        size: "quick" (one seed) or "paper" (ten times as many requests, three seeds).
        progress: Whether to show a bar; None shows it where somebody looks on.
        seed: Of lengths and of the beams' candidates; the first, where there are several.

    Raises:
        InvalidConfig: there is no such size.
    """
    check_size(size)
    cells = list(product(_LOADS, DECODINGS, WIDTHS, range(seed, seed + _NUM_SEEDS[size])))
    rows = []
    with progress_bar(len(cells), "Sharing", unit="load", progress=progress) as bar:
        for load, decoding, width, drawn in cells:
            lengths = _lengths(load, _NUM_REQUESTS[size][decoding][load], drawn)
            saved = saved_by_sharing(lengths, decoding, width, seed=drawn)
            expected = (
                closed_form_sharing(lengths, width) if decoding == "parallel" else float("nan")
            )
            published = _published(load, decoding, width)
            rows.append((load, decoding, width, drawn, 100 * saved, 100 * expected, published))
            bar.update()
    table = pd.DataFrame(rows, columns=[*_CELL, "seed", *_PERCENTS])
    samples = {
        f"vllm-fig15-{load}-{decoding}-{width}": saved.tolist()
        for (load, decoding, width), saved in table.groupby(_CELL)["saved_percent"]
        if width in _CLAIMED[load]
    }
    return Result(
        name="sharing_and_copy_on_write",
        size=size,
        data={"saved": table},
        measured=means(samples),
        reasons={name: _reason(name) for name in samples},
        seed=seed,
        samples=samples,
    )


def plot(result: Result) -> Any:
    """Draw the share of blocks saved as bars by width, published values and closed form on them."""
    from toolkit.experiments import plots  # matplotlib comes with an extra

    table = result.data["saved"].groupby(_CELL, as_index=False, sort=False)[_PERCENTS].mean()
    with plots.style():
        figure = plots.figure(height_in=3.3)
        panels = figure.subplots(1, len(_LOADS), sharey=True)
        for axes, (load, kind) in zip(panels, _LOADS.items(), strict=True):
            own = table[table["load"] == load]
            for index, decoding in enumerate(DECODINGS):
                _bars(axes, own[own["decoding"] == decoding], index, plots)
            axes.set_title(kind.__name__)
            axes.set_xticks(range(len(WIDTHS)), map(str, WIDTHS))
            axes.set_xlabel("sequences of a prompt")
            axes.grid(axis="x", visible=False)
        panels[0].set_ylabel("blocks saved (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.data = table
    return figure


def _lengths(load: str, num_requests: int, seed: int) -> list[tuple[int, int]]:
    """Return prompt and output tokens of each request: quantiles that fill the square evenly.

    A lattice of the golden ratio, moved by chance. Long outputs are rare and weigh much: as many
    free draws would be off by a third.
    """
    places = np.arange(num_requests)
    quantiles = (places + 0.5) / num_requests
    others = (places * _GOLDEN + np.random.default_rng(seed).random()) % 1.0
    prompt, output = _LOADS[load]().draw(quantiles, others)
    return list(zip(prompt.tolist(), output.tolist(), strict=True))


def _published(load: str, decoding: str, width: int) -> float:
    if width not in _CLAIMED[load]:
        return float("nan")
    return find_claim(f"vllm-fig15-{load}-{decoding}-{width}").value


def _reason(claim_id: str) -> str:
    lengths = "surrogate lengths, of which only the means were published"
    return f"{lengths}; beams survive by chance" if "-beam-" in claim_id else lengths


def _bars(axes: Any, table: pd.DataFrame, index: int, plots: Any) -> None:
    width = 0.38
    places = np.arange(len(table)) + (index - 0.5) * width
    decoding = table["decoding"].iloc[0]
    label = {"parallel": "parallel samples", "beam": "beam search"}[decoding]
    axes.bar(places, table["saved_percent"], width, color=plots.COLOURS[index], label=label)
    paper = axes.scatter(
        places, table["paper_percent"], marker="x", s=30, color=plots.PAPER_COLOUR, zorder=5
    )
    if decoding == "beam":
        paper.set_label("paper")
        return
    axes.scatter(
        places,
        table["closed_form_percent"],
        marker="_",
        s=60,
        color=plots.COLOURS[-1],
        zorder=4,
        label="closed form",
    )
