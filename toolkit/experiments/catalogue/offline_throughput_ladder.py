"""What each part of an engine is worth: nano-vllm's offline benchmark, a feature at a time.

The benchmark asks 256 prompts of 100 to 1,024 random tokens for 100 to 1,024 tokens each, all at
once, at temperature 0.6, and divides the output tokens by the seconds (nano-vllm, bench.py). Here
it climbs a ladder on the real engine: one request at a time, batches that start and end together,
continuous batching, then the C++ ops in place of plain torch.

The bundled model is small enough for the processor's caches. So what a batch shares is not so much
reads of weights as the cost of each call of an operation, inside the forward pass and around it:
the ladder's shape is this machine's, its tokens per second are nobody else's. The last line is what
would be left if only the model's own forward pass took time.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pandas as pd

from toolkit.experiments.catalogue.result import Result, check_size
from toolkit.experiments.plots import PAPER_COLOUR, DataFigure, figure, look, style
from toolkit.experiments.runs.results import Run
from toolkit.experiments.runs.running import run as run_workload
from toolkit.experiments.workloads.workload import Workload
from toolkit.request import SamplingParams
from toolkit.simulate import StaticBatching, progress_bar

__all__ = ["CLAIMS", "TITLE", "nano_vllm_workload", "plot", "run"]

TITLE = "What is each part of an engine worth?"
CLAIMS = ("nano-vllm-output-tokens", "nano-vllm-against-vllm")

_NUM_REQUESTS = 256
_SHORTEST, _LONGEST = 100, 1024
_TOKEN_IDS = 10_000
_BATCH = 16
# Requests, by how much their lengths are divided, and how many go one at a time.
_SIZES = {"quick": (48, 8, 6), "paper": (256, 2, 16)}
_ALONE = "one at a time"
# Name, what is new in it, options of the LLM, options of the run.
_RUNGS: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    (_ALONE, "plain torch ops", {"kernels": "reference", "max_num_seqs": 1}, {}),
    (
        "static batches",
        f"{_BATCH} start and end together",
        {"kernels": "reference", "max_num_seqs": _BATCH},
        {"policy": StaticBatching(_BATCH)},
    ),
    (
        "continuous batching",
        "who ends makes room at once",
        {"kernels": "reference", "max_num_seqs": _BATCH},
        {},
    ),
    ("C++ ops", "attention, norms and sampling", {"max_num_seqs": _BATCH}, {}),
)
_REASONS = {
    "nano-vllm-against-vllm": "needs both on one GPU, and neither is a part of this toolkit",
}


def nano_vllm_workload(num_requests: int = _NUM_REQUESTS, divisor: int = 1) -> Workload:
    """Return the benchmark's prompts and lengths, drawn as it draws them.

    Args:
        num_requests: The first so many.
        divisor: Lengths are divided by it, for machines that are slower.

    >>> int(nano_vllm_workload().table["num_output_tokens"].sum())
    133966
    """
    draw = Random(0)
    prompts = [
        [draw.randint(0, _TOKEN_IDS) for _ in range(draw.randint(_SHORTEST, _LONGEST))]
        for _ in range(_NUM_REQUESTS)
    ]
    outputs = [draw.randint(_SHORTEST, _LONGEST) for _ in range(_NUM_REQUESTS)]
    return Workload.from_prompts(
        [prompt[: len(prompt) // divisor] for prompt in prompts[:num_requests]],
        [length // divisor for length in outputs[:num_requests]],
    )


def run(size: str = "quick", *, progress: bool | None = None, seed: int = 0) -> Result:
    """Climb the ladder with the bundled model.

    Args:
        size: "quick" (48 requests of an eighth of the lengths) or "paper" (all 256, of half of
            them: the bundled model's context holds no more).
        progress: Whether to show a bar.
        seed: Of the engine's sampling; the prompts are the benchmark's own.

    Returns:
        Table ``ladder``: rung, what is new, output tokens, seconds, output tokens per second, and
        the share of the time that the model's forward pass took.
    """
    from toolkit.llm import LLM  # here: torch takes seconds to load

    check_size(size)
    num_requests, divisor, num_alone = _SIZES[size]
    full = nano_vllm_workload()
    rows = []
    with progress_bar(len(_RUNGS), "Ladder", unit="rung", progress=progress) as bar:
        for name, added, llm_options, run_options in _RUNGS:
            w = nano_vllm_workload(num_alone if name == _ALONE else num_requests, divisor)
            with LLM(seed=seed, enable_prefix_caching=False, **llm_options) as llm:
                params = SamplingParams(temperature=0.6, ignore_eos=True, detokenize=False)
                vocab_size = len(llm.tokenizer)
                done = run_workload(
                    _within(w, vocab_size), llm, params=params, progress=False, **run_options
                )
            rows.append({"rung": name, "added": added, **_speed(done)})
            bar.update()
    ladder = pd.DataFrame(rows)
    measured = {"nano-vllm-output-tokens": float(full.table["num_output_tokens"].sum())}
    return Result("offline_throughput_ladder", size, {"ladder": ladder}, measured, _REASONS, seed)


def _within(w: Workload, vocab_size: int) -> Workload:
    """Return the load with token ids that a small vocabulary has."""
    outputs = w.table["num_output_tokens"].tolist()
    prompts = [
        [token_id % vocab_size for token_id in w.prompt_token_ids(index, _TOKEN_IDS + 1)]
        for index in range(len(w))
    ]
    return Workload.from_prompts(prompts, outputs)


def _speed(done: Run) -> dict[str, Any]:
    assert done.record is not None
    requests, steps = done.requests, done.record.steps
    seconds = float(requests["last_token_s"].max() - requests["sent_s"].min())
    num_tokens = int(requests["num_output_tokens"].sum())
    return {
        "num_output_tokens": num_tokens,
        "seconds": seconds,
        "output_tokens_per_s": num_tokens / seconds,
        "forward_share": float(steps["forward_s"].sum()) / seconds,
    }


def plot(result: Result) -> DataFigure:
    """Draw a bar per rung, its gain over the one below, and what the forward pass alone allows."""
    ladder = result.data["ladder"]
    num_requests, divisor, _ = _SIZES[result.size]
    with style():
        fig = figure(width_in=5.2, height_in=2.6)
        axes = fig.subplots()
        speeds = ladder["output_tokens_per_s"].tolist()
        axes.barh(range(len(speeds)), speeds, height=0.6, color=look(0).color)
        for at, (speed, added) in enumerate(zip(speeds, ladder["added"], strict=True)):
            gain = f"  x {speed / speeds[at - 1]:.1f}" if at else ""
            axes.text(speed, at, f" {speed:,.0f}{gain}", va="center", fontsize=7.5)
            axes.text(speed * 0.02 + max(speeds) * 0.004, at + 0.42, added, va="center", fontsize=6)
        last = ladder.iloc[-1]
        limit = float(last["output_tokens_per_s"] / last["forward_share"])
        axes.axvline(limit, color=PAPER_COLOUR, linestyle=":", linewidth=1)
        axes.text(
            limit, -0.55, "the forward pass alone ", ha="right", va="center", fontsize=7,
            color=PAPER_COLOUR,
        )  # fmt: skip
        axes.set_yticks(range(len(speeds)), ladder["rung"])
        axes.set(
            xlabel="output tokens/s",
            title=f"{num_requests} of nano-vllm's requests, lengths / {divisor}",
            xlim=(0, 1.18 * max(limit, *speeds)),
            ylim=(-0.75, len(speeds) - 0.3),
        )
        axes.grid(axis="y", visible=False)
        fig.data = ladder
    return fig
