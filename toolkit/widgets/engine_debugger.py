"""EngineDebugger: step an engine, run it until something happens, go back, and watch."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from toolkit.engine import StepReport
from toolkit.errors import InvalidConfig
from toolkit.widgets.block_map import BlockMap
from toolkit.widgets.debugger_controls import DebuggerControls
from toolkit.widgets.fallback import page, written
from toolkit.widgets.front_end import can_show_widgets
from toolkit.widgets.source import open_source
from toolkit.widgets.timeline import Timeline

__all__ = ["EngineDebugger"]

_MAP_HEIGHT_PX = 240  # all three views fit on a screen


class EngineDebugger(ipywidgets.VBox):
    """Controls, the plan of the last step, a Timeline and a BlockMap of one engine.

    While the engine's own thread runs the steps, as it does for a server, it is paused first.

    Args:
        source: An Engine, LLM or Server.

    Raises:
        InvalidConfig: there is no engine to drive: a record only tells what has happened.
    """

    def __init__(self, source: Any) -> None:
        opened = open_source(source)
        if opened.engine is None:
            raise InvalidConfig(
                "a record cannot be stepped; give an engine, or record.engine_at(step)"
            )
        self.engine = opened.engine
        self.controls = DebuggerControls(opened, self._refresh)
        # In seconds the time that a person thinks would fill the picture.
        self.timeline = Timeline(opened, x="steps")
        self.block_map = BlockMap(opened, max_height_px=_MAP_HEIGHT_PX)
        super().__init__([self.controls, self.timeline, self.block_map])

    def step(self) -> StepReport | None:
        """Run one step and show what it did; None if there is nothing to do."""
        return self.controls.step()

    def run_until(self, until: str, argument: Any = "") -> StepReport | None:
        """Run steps until something happens; see ``DebuggerControls.run_until``."""
        return self.controls.run_until(until, argument)

    def back(self, step: int | None = None) -> Any:
        """Go back to before an earlier step, by default the last one; return the record until now.

        Raises:
            EngineError: there is no earlier step, or the engine cannot go back.
        """
        return self.controls.back(step)

    @property
    def data(self) -> pd.DataFrame:
        """The steps that have run."""
        return self.controls.data

    def close(self) -> None:
        """Take the debugger and its views off every page."""
        parts = [*self._trait_values.get("children", ()), self._trait_values.get("layout")]
        super().close()
        for part in parts:
            if part is not None:
                part.close()

    def _refresh(self) -> None:
        for view in (self.timeline, self.block_map):
            if view.is_displayed:
                view.refresh()

    # ---- without a page

    def to_png(self, path: str | PathLike[str] | None = None) -> bytes | Path:
        """Return the timeline as a PNG picture; with a path, write it there and return the path."""
        return written(self.timeline.to_png(), path)

    def to_html(self, path: str | PathLike[str] | None = None) -> str | Path:
        """Return all views as a page that stands alone; with a path, write it and return that."""
        return written(page("EngineDebugger", "".join(self._static())), path)

    def _static(self) -> list[str]:
        parts = (self.controls, self.timeline, self.block_map)
        return [f"<div>{part.static_html()}</div>" for part in parts]

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Offer the live view and, for whatever cannot show it, the view as it is now."""
        static = self._static()
        data = {"text/plain": repr(self), "text/html": "".join(static)}
        if not can_show_widgets():
            return data
        for part, html in zip((self.controls, self.timeline, self.block_map), static, strict=True):
            part.keep_fallback(html)
        live: Any = super()._repr_mimebundle_(**kwargs)
        return {**live, **data}

    def __repr__(self) -> str:
        return f"EngineDebugger({self.controls.status})"
