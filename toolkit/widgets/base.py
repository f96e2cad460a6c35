"""What every widget is built on: a module in JavaScript, frames to it, actions from it, a fallback.

State lives in Python and a page asks for all of it when it opens ("hello"), so a reload, a second
tab or a restarted browser shows the same. Python answers with frames: a kind, some facts, and
arrays as binary buffers. What the page says back is an action, ``{"type": kind, ...}``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, overload

import anywidget
import traitlets

from toolkit.widgets.fallback import page, picture, png_bytes, written
from toolkit.widgets.frames import Frames
from toolkit.widgets.front_end import can_show_widgets
from toolkit.widgets.palette import css
from toolkit.widgets.ticker import TICKER

__all__ = ["Widget"]

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
# A page that was saved with its widgets draws this without a kernel. Larger ones would not leave
# the saved state below 100 KB.
_MAX_FALLBACK_CHARS = 40_000
_PING_AFTER_S = 5.0  # a closed page is noticed by its silence


class Widget(anywidget.AnyWidget):
    """A view with a module in JavaScript, live or of a record.

    A subclass sets ``_esm`` to the path of its module, which finds the functions of ``shared.js``
    in scope, and gives ``full_frame``, ``figure`` and, where it follows something, ``tick``.
    """

    _esm: ClassVar[str | Path] = (_HERE / "loader.js").read_text()
    _css = css() + (_HERE / "theme.css").read_text()
    _module = traitlets.Unicode("").tag(sync=True)
    _module_key = traitlets.Unicode("").tag(sync=True)
    _fallback = traitlets.Unicode("").tag(sync=True)
    _script: Path | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take the module's path out of anywidget's sight: it would import it for each widget."""
        script = cls.__dict__.get("_esm")
        if isinstance(script, Path):  # else a trait: anywidget makes a class for each widget
            cls._script = script
            cls._esm = Widget._esm
        super().__init_subclass__(**kwargs)

    def __init__(self, **kwargs: Any) -> None:
        module = (_HERE / "shared.js").read_text()
        if self._script is not None:
            module += self._script.read_text()
        self._work = threading.RLock()  # held while this widget's own Python runs
        self._frames = Frames(self._send_message)
        self._actions: dict[str, Callable[[dict[str, Any]], object]] = {}
        self._sends_full = False
        super().__init__(
            _module=module,
            _module_key=blake2b(module.encode(), digest_size=8).hexdigest(),
            **kwargs,
        )
        self.on_msg(self._on_custom)

    # ---- what a subclass gives

    @property
    def data(self) -> Any:
        """The DataFrame that is shown."""
        raise NotImplementedError

    def full_frame(self) -> None:
        """Send everything that a page needs which has just opened, with ``send_frame``."""

    def tick(self) -> None:
        """Send what is new; called ten times a second at most, when a frame would go at once."""

    @property
    def is_live(self) -> bool:
        """Whether there may be something new to send."""
        return False

    def figure(self) -> Any:
        """Return the view as a matplotlib Figure."""
        raise NotImplementedError

    def static_html(self) -> str:
        """Return the view as HTML that needs no script and no network."""
        return picture(png_bytes(self.figure()), alt=repr(self))

    # ---- messages

    def send_frame(self, kind: str, /, meta: dict[str, Any] | None = None, **arrays: Any) -> None:
        """Send a frame when the page has drawn the last one; of each kind the newest counts.

        Args:
            kind: What the module's handler is told.
            meta: Small facts, as JSON.
            **arrays: Numbers, sent as binary; 64-bit integers arrive as 32-bit ones.
        """
        self._frames.put(kind, meta or {}, arrays, is_full=self._sends_full)
        if self._frames.has_pending:
            TICKER.add(self)  # which sends it when its time has come

    def on_message(self, kind: str, action: Callable[[dict[str, Any]], object]) -> None:
        """Call ``action(message)`` when the page sends a message of this kind."""
        self._actions[kind] = action

    def refresh(self) -> None:
        """Send everything anew, as to a page that has just opened."""
        with self._work:
            self._sends_full = True
            try:
                self.full_frame()
            finally:
                self._sends_full = False

    @property
    def is_displayed(self) -> bool:
        """Whether a page shows the widget now, as far as its answers tell."""
        return self._frames.num_views > 0

    @property
    def wants_ticks(self) -> bool:
        """Whether the ticker is to call this widget."""
        return self.is_displayed and (self.is_live or self._frames.has_pending)

    def send_waiting(self) -> None:
        """Send frames that wait for their turn."""
        self._frames.flush()

    def on_tick(self) -> None:
        """Send what waits, or what is new."""
        self.send_waiting()
        if not (self.is_live and self._frames.is_ready):
            return
        self._guarded(self.tick)
        if self._frames.idle_s > _PING_AFTER_S:
            self.send_frame("ping")

    def _on_custom(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        kind, view = content.get("type"), str(content.get("view", ""))
        if kind == "ack":
            self._frames.acknowledge(view, int(content["seq"]))
        elif kind == "bye":
            self._frames.close(view)
        elif kind == "hello":
            self._frames.open(view)
            self._guarded(self.refresh)
        elif kind in self._actions:
            self._guarded(lambda: self._actions[kind](content))
        if self.wants_ticks:
            TICKER.add(self)

    def _guarded(self, action: Callable[[], object]) -> None:
        """Run this widget's own code; what it raises is shown in the page and logged."""
        try:
            with self._work:
                action()
        except Exception as error:
            # Its name alone: describing itself can need what has just failed.
            logger.warning("%s could not do what was asked:", type(self).__name__, exc_info=True)
            self.send_frame("error", {"message": f"{type(error).__name__}: {error}"})

    def _send_message(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        # From any thread: the kernel hands what it publishes to a thread of its own. Were it sent
        # from the kernel's loop, a cell that blocks would hold up its own live view.
        self.send(content, buffers)

    def close(self) -> None:
        """Take the widget off every page, and its layout with it."""
        layout = self._trait_values.get("layout")  # none where the widget was never finished
        super().close()
        if layout is not None:
            layout.close()

    # ---- without a page

    @overload
    def to_png(self, path: None = None) -> bytes: ...

    @overload
    def to_png(self, path: str | PathLike[str]) -> Path: ...

    def to_png(self, path: str | PathLike[str] | None = None) -> bytes | Path:
        """Return the view as a PNG picture; with a path, write it there and return the path."""
        return written(png_bytes(self.figure()), path)

    @overload
    def to_html(self, path: None = None) -> str: ...

    @overload
    def to_html(self, path: str | PathLike[str]) -> Path: ...

    def to_html(self, path: str | PathLike[str] | None = None) -> str | Path:
        """Return the view as a page that stands alone; with a path, write it and return that."""
        return written(page(type(self).__name__, self._static()), path)

    def _static(self) -> str:
        return f'<div class="tk-static">{self.static_html()}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Offer the live view and, for whatever cannot show it, the view as it is now."""
        data = {"text/plain": repr(self), "text/html": self._static()}
        if not can_show_widgets():
            return data, {}
        self.keep_fallback(data["text/html"])
        bundle: Any = super()._repr_mimebundle_(**kwargs)
        live, metadata = bundle
        return {**live, **data}, metadata

    def keep_fallback(self, html: str) -> None:
        """Let a page draw this while no kernel answers, unless it is too large to be saved."""
        if len(html) <= _MAX_FALLBACK_CHARS:
            self._fallback = html

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
