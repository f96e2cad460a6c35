"""Draw the README's picture of a Timeline: the bundled model, a pool that is too small, a click.

Needs Chromium and the ``dev`` extra; run from the repository's root with
``python -m docs.images.draw_timeline``.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from ipywidgets.widgets import widget as ipywidgets_widget
from playwright.sync_api import sync_playwright

from tests.browser.bare import BarePage
from tests.widgets.conftest import FakeComm
from toolkit import LLM, Record, SamplingParams
from toolkit.widgets import Timeline

TARGET = Path(__file__).with_name("timeline.png")
NUM_REQUESTS = 24


def crowded_run() -> Record:
    """Return the record of requests that arrive one by one and do not all fit."""
    llm = LLM(num_kv_blocks=24, block_size=8, max_model_len=160, max_num_batched_tokens=48)
    engine, draw = llm.engine, random.Random(5)
    for _ in range(NUM_REQUESTS):
        prompt = [draw.randrange(300, 4000) for _ in range(draw.randrange(10, 60))]
        params = SamplingParams(max_tokens=draw.randrange(12, 48), ignore_eos=True)
        engine.add(prompt, params)
        for _ in range(draw.randrange(1, 6)):
            engine.step()
    engine.run_until_idle()
    record = engine.record.freeze()
    llm.close()
    return record


def main() -> None:
    """Show the widget in a page, click the request that waited longest, keep the picture."""
    record = crowded_run()

    def create_comm(*, data: dict[str, Any], **_: Any) -> FakeComm:
        return FakeComm("comm", dict(data["state"]))

    ipywidgets_widget.comm.create_comm = create_comm
    with sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": 900, "height": 880}, device_scale_factor=1.5
        )
        page = BarePage(context.new_page(), Timeline(record))
        row = int(record.requests["ttft_s"].argmax())
        page.root.locator("canvas").click(position={"x": 500, "y": row * 16 + 8})
        page.settle()
        page.page.mouse.move(5, 870)
        page.settle()
        page.root.screenshot(path=TARGET)
        browser.close()


if __name__ == "__main__":
    main()
