"""Pictures and pages for where no widget can run: exported notebooks, mail, a paper."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from os import PathLike
from pathlib import Path
from struct import pack
from typing import Any, TypeVar
from zlib import compress, crc32

from toolkit.files import ready_to_write

__all__ = [
    "PALE",
    "bar_row",
    "legend",
    "new_figure",
    "page",
    "picture",
    "png_bytes",
    "raster_png",
    "small_png",
    "written",
]

PALE = "#c9ced4"  # what was there before
_Content = TypeVar("_Content", bytes, str)


def new_figure(width_in: float, height_in: float) -> Any:
    """Return a matplotlib Figure that belongs to no window and leaves pyplot as it is."""
    # Imported here: it takes half a second, which a live view does not need.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Any, dpi: int = 110) -> bytes:
    """Return a figure as PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def small_png(figure: Any, dpi: int = 80) -> bytes:
    """Return a figure as PNG in few colours: a third of the bytes, for what a page keeps of it."""
    import numpy as np

    figure.set_dpi(dpi)
    figure.set_facecolor("white")
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places, counts = np.unique(packed.ravel(), return_inverse=True, return_counts=True)
    # Colours alike in the three high bits of each channel become one, the most frequent of them.
    alike = colours & 0xE0E0E0
    order = np.lexsort((-counts, alike))
    firsts = np.unique(alike[order], return_index=True)[1]
    palette = colours[order[firsts]]
    numbers: Any = np.searchsorted(np.unique(alike), alike)
    rows = numbers[places].astype(np.uint8)
    return _png(rows.reshape(packed.shape), [int(colour) for colour in palette])


def picture(png: bytes, *, alt: str, style: str = "max-width:100%") -> str:
    """Return an ``img`` element that carries its own bytes."""
    data = b64encode(png).decode()
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{data}">'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return names beside their colours, as HTML."""
    swatch = "display:inline-block;width:10px;height:10px;margin-right:4px;background:"
    spans = (
        f'<span style="white-space:nowrap;margin-right:12px"><i style="{swatch}{colour}"></i>'
        f"{escape(name)}</span>"
        for name, colour in entries
    )
    return f"<div>{' '.join(spans)}</div>"


def bar_row(text: str, *, before: float, after: float, number: str, colour: str) -> str:
    """Return a token with two bars, one in front of the other; both are shares of the width."""
    bar = "position:absolute;left:0;"
    return (
        '<div style="display:flex;gap:8px;height:16px;line-height:16px;white-space:nowrap">'
        '<span style="flex:0 0 110px;text-align:right;overflow:hidden;font-family:monospace">'
        f'{escape(text)}</span><span style="flex:1 1 0;position:relative">'
        f'<i style="{bar}top:2px;height:12px;width:{before:.2%};background:{PALE}"></i>'
        f'<i style="{bar}top:5px;height:6px;width:{after:.2%};background:{colour}"></i></span>'
        f'<span style="flex:0 0 50px;text-align:right">{number}</span></div>'
    )


def page(title: str, body: str) -> str:
    """Return a whole HTML page around a fragment."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        "<style>body{font:14px/1.4 system-ui,sans-serif;margin:24px;color:#1f2328;background:#fff}"
        f"</style></head>\n<body>{body}</body></html>\n"
    )


def written(content: _Content, path: str | PathLike[str] | None) -> _Content | Path:
    """Return the content; with a path, write it there and return the path: a cell prints that.

    Folders that lack are made.
    """
    if path is None:
        return content
    data = content.encode() if isinstance(content, str) else content
    path = ready_to_write(path)
    path.write_bytes(data)
    return path


def raster_png(pixels: Any) -> bytes:
    """Return an image, [height, width, 3] uint8, as PNG; no drawing library is needed."""
    return _png(pixels)


def _png(pixels: Any, palette: Sequence[int] = ()) -> bytes:
    """Return [height, width, 3] uint8, or with a palette of 0xRRGGBB [height, width], as PNG."""
    height, width = pixels.shape[:2]
    # Each line begins with its filter: 0, as it is.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = pack(">IIBBBBB", width, height, 8, 3 if palette else 2, 0, 0, 0)
    colours = b"".join(colour.to_bytes(3, "big") for colour in palette)
    chunks = [(b"IHDR", head), (b"PLTE", colours), (b"IDAT", compress(lines, 9)), (b"IEND", b"")]
    if not palette:
        del chunks[1]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + name + body + pack(">I", crc32(name + body))
        for name, body in chunks
    )
