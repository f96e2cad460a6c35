"""Measure what a live widget costs the engine that it watches.

    python kernels/bench/widget_cost.py [--repeats 7] [--model 160m|demo] [--only Dashboard ...]

A batch of requests runs without a widget, and with each of them on a page that answers every frame
within a tenth of a second, as a browser does; the browser itself is left out. Rounds alternate, so
that drift of the machine hits all of them; a ratio is that of neighbouring rounds. Where a
machine's speed varies by more than a widget costs, ``processor_share`` bounds what drawing costs:
processor seconds of the widgets' threads per second of wall time, which the engine loses if it has
no other core. The goal is less than 2 % each. Writes results/widget_cost_MODEL.json.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import save, spread, write_random_llama
from ipywidgets.widgets import widget as ipywidgets_widget

from toolkit import LLM, SamplingParams, serve
from toolkit.demo import WEIGHTS
from toolkit.widgets import BlockMap, Dashboard, ServerPanel, Timeline, Waterfall

NUM_REQUESTS = 32
NUM_PROMPT_TOKENS = 32
NUM_TOKEN_IDS = 2000  # the demo's vocabulary, which serves both models
NUM_OUTPUT_TOKENS = {"160m": 96, "demo": 512}  # some seconds a round: widgets tick in tenths
ANSWER_S = 0.1
PAGE = "page"
MAKERS: dict[str, Callable[[Any], Any]] = {
    "Dashboard": Dashboard,
    "ServerPanel": ServerPanel,
    "Timeline": Timeline,
    "BlockMap": BlockMap,
    "Waterfall": Waterfall,
}


class Comm:
    """What ipywidgets sends to; it keeps the number of the last frame, and counts bytes."""

    def __init__(self) -> None:
        self.comm_id = "bench"
        self.newest = self.num_frames = self.num_bytes = 0

    def send(self, data: Any = None, buffers: Any = None, **_: Any) -> None:
        """Take a message."""
        if data and data["method"] == "custom":
            self.newest = data["content"]["seq"]
            self.num_frames += 1
            self.num_bytes += sum(map(len, buffers or ()))

    def on_msg(self, callback: Any) -> None:
        """Nobody calls back."""

    def on_close(self, callback: Any) -> None:
        """It stays open."""

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to close."""


@contextmanager
def displayed(widget: Any) -> Iterator[Comm]:
    """Show a widget on a page without a browser, which answers ten times a second."""
    over = threading.Event()
    comm: Comm = widget.comm

    def answer() -> None:
        while not over.wait(ANSWER_S):
            widget._on_custom(widget, {"type": "ack", "view": "bench", "seq": comm.newest}, [])

    widget._on_custom(widget, {"type": "hello", "view": "bench"}, [])
    page = threading.Thread(target=answer, name=PAGE, daemon=True)
    page.start()
    try:
        yield comm
    finally:
        over.set()
        page.join()
        widget._on_custom(widget, {"type": "bye", "view": "bench"}, [])
        widget.close()


def widgets_threads_s() -> float:
    """Return the processor seconds of the threads on which widgets draw and pages answer."""
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.name in ("toolkit-widgets", PAGE) and thread.ident is not None
    ]
    return sum(map(time.clock_gettime, clocks))


def generate(llm: LLM, num_output_tokens: int) -> float:
    """Run the batch; return output tokens per second."""
    llm.reset_prefix_cache()
    prompts = [
        [5 + (7 * request + 3 * i) % NUM_TOKEN_IDS for i in range(NUM_PROMPT_TOKENS)]
        for request in range(NUM_REQUESTS)
    ]
    params = SamplingParams(max_tokens=num_output_tokens, ignore_eos=True, temperature=0)
    start_s = time.perf_counter()
    outputs = llm.generate(prompts, params, progress=False)
    elapsed_s = time.perf_counter() - start_s
    return sum(len(output.outputs[0].token_ids) for output in outputs) / elapsed_s


def measure(llm: LLM, names: list[str], repeats: int, num_output_tokens: int) -> dict[str, Any]:
    """Alternate rounds without and with each widget."""
    generate(llm, num_output_tokens)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    shares: dict[str, list[float]] = {name: [] for name in names}
    traffic: dict[str, dict[str, float]] = {}
    rates: list[float] = []
    with serve(llm, port=0) as server:
        for repeat in range(repeats):
            for name in names:
                plain = generate(llm, num_output_tokens)
                with displayed(MAKERS[name](server)) as comm:
                    start_s, worked_s = time.perf_counter(), widgets_threads_s()
                    watched = generate(llm, num_output_tokens)
                    elapsed_s = time.perf_counter() - start_s
                    shares[name].append((widgets_threads_s() - worked_s) / elapsed_s)
                after = generate(llm, num_output_tokens) if repeat % 2 else plain
                base = (plain + after) / 2
                rates.append(plain)
                ratios[name].append(watched / base)
                traffic[name] = {
                    "frames_per_s": round(comm.num_frames / elapsed_s, 2),
                    "kB_per_s": round(comm.num_bytes / elapsed_s / 1e3, 1),
                }
                share = shares[name][-1]
                print(f"{name:12} {watched / base:.4f}  {share:.4f}  {traffic[name]}", flush=True)
    return {
        "output_tokens_per_s": spread(rates),
        "widgets": {
            name: {
                "throughput_ratio": spread(ratios[name]),
                "processor_share": spread(shares[name]),
                **traffic[name],
            }
            for name in names
        },
    }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", choices=NUM_OUTPUT_TOKENS, default="160m")
    parser.add_argument("--only", nargs="*", choices=MAKERS, default=list(MAKERS))
    options = parser.parse_args()
    ipywidgets_widget.comm.create_comm = lambda **_: Comm()
    with TemporaryDirectory() as folder:
        model = WEIGHTS if options.model == "demo" else write_random_llama(Path(folder))
        # A model of random weights has no tokenizer of its own.
        settings = {} if options.model == "demo" else {"tokenizer": str(WEIGHTS)}
        with LLM(str(model), max_num_seqs=NUM_REQUESTS, **settings) as llm:
            num = NUM_OUTPUT_TOKENS[options.model]
            results = measure(llm, options.only, options.repeats, num)
    settings = {"model": options.model, "requests": NUM_REQUESTS, "output_tokens": num}
    save(f"widget_cost_{options.model}", {"settings": settings, **results})


if __name__ == "__main__":
    main()
