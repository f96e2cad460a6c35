"""Show every KV block as a cell: who holds it, what is shared, what a later prompt could reuse."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.errors import ToolkitError
from toolkit.widgets.base import Widget
from toolkit.widgets.block_cells import BlockCells, cells_of_frame, cells_of_snapshot
from toolkit.widgets.fallback import legend, new_figure, picture, raster_png
from toolkit.widgets.palette import LIGHT, owner_colour, owner_index, rgb
from toolkit.widgets.source import open_source

__all__ = ["BlockMap"]

_NO_HISTORY = (
    "Earlier steps need the record's level to be 'blocks' from the start: "
    "engine.record.level = 'blocks'"
)
_MAX_HEIGHT_PX = 420
_MAX_HISTORY_ROWS = 8  # what fits beside a pointer
_LARGE_POOL = 4096  # from here on cells are small, and the picture stays below 40 kB
_NUM_NAMED = 12  # owners in the legend of a picture


class BlockMap(Widget):
    """The blocks of a KV cache, at one step or as they change.

    Colours are owners, a small square marks a shared block, green is free but reusable, grey is
    empty; the filled part of a block is its tokens, and a block fades as it grows old. The slider
    and the arrow keys go through the steps of a record whose level is "blocks"; without one, a live
    engine is shown as it is now.

    Args:
        source: An LLM, Engine, Server, Run, Record, or the path of a saved record.
        step: The step to show first; the newest when None.
        max_height_px: Cells shrink to fit in it.
    """

    _esm = Path(__file__).parent / "block_map.js"

    def __init__(
        self, source: Any, *, step: int | None = None, max_height_px: int = _MAX_HEIGHT_PX
    ) -> None:
        self.source = open_source(source)
        self._record = self.source.record
        self._follows = step is None
        self._max_height_px = max_height_px
        self._cells: BlockCells | None = None
        self._seen: tuple[int, ...] = ()  # what tells that the engine has moved on
        super().__init__()
        if self._has_history or self.is_live:
            self.show(step)
        self.on_message("step", lambda message: self._go(int(message["step"])))
        self.on_message("follow", lambda message: self.show())
        self.on_message("history", lambda message: self._tell(int(message["block"])))

    # ---- what is shown

    @property
    def step(self) -> int | None:
        """The step after which the blocks are shown."""
        return self._cells.step if self._cells is not None else None

    @property
    def data(self) -> pd.DataFrame:
        """A row per block: block_id, state, request_ids, ref_count, hash, num_filled and so on."""
        self._catch_up()
        return self._require().frame()

    @property
    def is_live(self) -> bool:
        """Whether the engine may change what is shown, or make the slider longer."""
        return self.source.is_live and hasattr(self.source.engine, "block_snapshot")

    @property
    def _has_history(self) -> bool:
        return self._record.level in ("blocks", "explain") and hasattr(self._record, "blocks_at")

    def show(self, step: int | None = None) -> None:
        """Show the blocks after a step, or follow the newest one when None.

        Raises:
            ToolkitError: the record does not hold the blocks of that step.
        """
        with self._work:
            self._follows = step is None
            self._cells = self._cells_at(self._newest() if step is None else step)
            self._send_cells()

    def _cells_at(self, step: int) -> BlockCells:
        if self._follows and self.is_live:
            return cells_of_snapshot(self.source.engine.block_snapshot())
        if not self._has_history:
            raise ToolkitError(_NO_HISTORY)
        frame = self._record.blocks_at(step)
        return cells_of_frame(frame, step=step, block_size=self._record.block_size)

    def _newest(self) -> int:
        """The last step that is known; 0 before the first."""
        if self.is_live:
            return int(self.source.engine.step_number)
        steps = self._record.tail("steps", 1)["step"]
        return int(steps.iloc[0]) if len(steps) else 0

    def _oldest(self) -> int:
        """The first step whose blocks can be shown."""
        if not self._has_history:
            return self._newest()
        steps = self._record.steps["step"]
        return int(steps.iloc[0]) if len(steps) else 0

    def _catch_up(self) -> None:
        if self._follows and self.is_live:
            self._cells = self._cells_at(self._newest())

    def _require(self) -> BlockCells:
        if self._cells is None:
            raise ToolkitError(_NO_HISTORY)
        return self._cells

    # ---- frames and actions

    def full_frame(self) -> None:
        """Send the cells and the range of the slider."""
        self._catch_up()
        self._send_cells()

    def tick(self) -> None:
        """Follow the engine: new cells where the newest step is shown, else a longer slider."""
        pool = self.source.engine.cache.pool
        # Reading three numbers needs no pause of the engine; they change when anything does.
        seen = (self.source.engine.step_number, pool.num_free, pool.num_cached)
        if seen != self._seen:
            self._seen = seen
            self._catch_up()
            self._send_cells()

    def _send_cells(self) -> None:
        newest = self._newest()
        meta: dict[str, Any] = {
            "newest": newest,
            "oldest": self._oldest() if self._has_history else newest,
            "follows": self._follows,
            "live": self.is_live,
            "note": "" if self._has_history else _NO_HISTORY,
            "max_height_px": self._max_height_px,
        }
        if self._cells is None:
            self.send_frame("cells", meta)
            return
        cells = self._cells
        meta |= {
            "step": cells.step,
            "block_size": cells.block_size,
            "owners": list(cells.owners),
            "paints": [owner_index(name) for name in cells.owners],
            "counts": cells.counts(),
        }
        self.send_frame("cells", meta, **cells.arrays())

    def _go(self, step: int) -> None:
        newest = self._newest()
        self.show(min(max(step, self._oldest()), newest))

    def _tell(self, block_id: int) -> None:
        """Send what happened to one block, newest last."""
        rows: list[str] = []
        if self._has_history:
            table = self._record.blocks
            table = table[(table["block_id"] == block_id) & (table["start_step"] <= self.step)]
            rows = [_told(row) for row in table.tail(_MAX_HISTORY_ROWS).itertuples()]
        self.send_frame("history", {"block": block_id, "rows": rows})

    # ---- without a page

    def figure(self) -> Any:
        """Return the map as a matplotlib Figure."""
        from matplotlib.patches import Patch

        self._catch_up()
        cells = self._require()
        image = _raster(cells)
        figure = new_figure(8, 1.4 + 6.5 * image.shape[0] / image.shape[1])
        axes = figure.subplots()
        axes.imshow(image, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(self._caption(cells), loc="left", fontsize=9)
        patches = [Patch(color=colour, label=name) for name, colour in _legend(cells)]
        figure.legend(handles=patches, loc="outside lower left", ncols=6, fontsize=7, frameon=False)
        return figure

    def static_html(self) -> str:
        """Return the map as a picture with its counts and its legend."""
        if self._cells is None:
            return f"<p>{escape(_NO_HISTORY)}</p>"
        self._catch_up()
        cells = self._require()
        image = picture(
            raster_png(_raster(cells)),
            alt=self._caption(cells),
            style=f"width:100%;max-width:900px;max-height:{self._max_height_px}px;"
            "object-fit:contain;object-position:left;image-rendering:pixelated;background:white",
        )
        return f"<div><b>{escape(self._caption(cells))}</b></div>{image}{legend(_legend(cells))}"

    def _caption(self, cells: BlockCells) -> str:
        counts = cells.counts()
        return (
            f"After step {cells.step}: {cells.num_blocks} blocks of {cells.block_size} tokens, "
            f"{counts['held']} held ({counts['shared']} shared), {counts['cached']} cached, "
            f"{counts['empty']} empty"
        )

    def __repr__(self) -> str:
        if self._cells is None:
            return "BlockMap(no blocks recorded)"
        return f"BlockMap({self._cells.num_blocks} blocks, step {self._cells.step})"


def _told(row: Any) -> str:
    """One holding of a block, in words."""
    end = f"step {row.end_step:.0f}" if row.end_step == row.end_step else "now"
    why = f", {row.end_why}" if isinstance(row.end_why, str) and row.end_why else ""
    return f"{row.how} by {row.request_id}: step {row.start_step:.0f} to {end}{why}"


def _legend(cells: BlockCells) -> list[tuple[str, str]]:
    named = [(name, owner_colour(owner_index(name))) for name in cells.owners[:_NUM_NAMED]]
    more = len(cells.owners) - len(named)
    rest = [(f"{more} more", LIGHT["text"])] if more > 0 else []
    return [*named, *rest, ("cached", LIGHT["cached"]), ("empty", LIGHT["free"])]


def _raster(cells: BlockCells) -> np.ndarray:
    """Draw a cell per block, [height, width, 3] uint8; the unfilled part of a block is paler."""
    pixels = 8 if cells.num_blocks <= _LARGE_POOL else 4
    columns = max(1, min(cells.num_blocks, max(32, int(np.ceil(np.sqrt(cells.num_blocks * 2.5))))))
    rows = -(-cells.num_blocks // columns)
    image: np.ndarray = np.full((rows, pixels, columns, pixels, 3), 255, np.uint8)
    place = np.arange(cells.num_blocks)
    row: np.ndarray = place // columns
    column: np.ndarray = place % columns
    colours = cells.colours()
    inside = pixels - 1  # the last pixel is the gap to the next cell
    height = np.where(
        cells.states == 2, np.ceil(cells.num_filled / cells.block_size * inside), inside
    )
    pale = (255 - (255 - colours.astype(int)) * 0.3).astype(np.uint8)
    shared = cells.ref_counts > 1
    hollow = cells.states == 1
    for y in range(inside):
        is_filled = (inside - y) <= height
        line = np.where(is_filled[:, None], colours, pale)
        for x in range(inside):
            image[row, y, column, x] = line
    for y in range(1, inside - 1):
        for x in range(1, inside - 1):
            image[row[hollow], y, column[hollow], x] = rgb(LIGHT["free"])
    middle = slice(inside // 2 - 1, inside // 2 + 1)
    for y in range(pixels)[middle]:
        for x in range(pixels)[middle]:
            image[row[shared], y, column[shared], x] = 0
    return image.reshape(rows * pixels, columns * pixels, 3)
