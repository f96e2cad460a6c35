"""Widgets of a server in another process: they draw what comes by HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.server import serve
from toolkit.widgets import Timeline


@pytest.mark.slow
def test_the_timeline_of_another_process_is_drawn_and_goes_on(open_page: Any):
    with serve(port=0, process=True, num_kv_blocks=64) as server:
        client, model = server.client(), server.model_name
        client.completions.create(model=model, prompt="Hi", max_tokens=3)
        timeline = Timeline(server)
        page = open_page(timeline)
        assert page.newest("all").meta["num_requests"] == 1
        client.completions.create(model=model, prompt="Ho", max_tokens=2)
        timeline.tick()
        frame = page.wait("more")
        assert frame.meta["num_requests"] == 2
        assert frame.meta["request_ids"] == ["req-1"]
        assert "png" in timeline.to_html()
