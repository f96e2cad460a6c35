"""A page without a browser: what a widget sends is decoded, what a page says is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from ipywidgets.widgets import widget as ipywidgets_widget


@dataclass
class Frame:
    kind: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    seq: int
    is_full: bool


@dataclass
class FakeComm:
    """What ipywidgets opens to the front end."""

    comm_id: str
    state: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[dict[str, Any], list[bytes]]] = field(default_factory=list)
    receive: Callable[[dict[str, Any]], None] | None = None

    def send(self, data: dict[str, Any] | None = None, buffers: Any = None, **_: Any) -> None:
        assert data is not None
        if data["method"] == "update":
            self.state.update(data["state"])
        else:
            self.messages.append((data["content"], buffers or []))

    def on_msg(self, callback: Callable[[dict[str, Any]], None]) -> None:
        self.receive = callback

    def on_close(self, callback: Any) -> None: ...

    def close(self, *args: Any, **kwargs: Any) -> None: ...


class Page:
    """A browser tab that shows one widget; it answers every frame if ``answers``."""

    def __init__(self, widget: Any, *, view: str = "tab-1", answers: bool = True) -> None:
        self.widget, self.view, self.answers = widget, view, answers
        self.frames: list[Frame] = []  # all that came, oldest first
        self._num_looked_at = 0  # of them; the others are those that ``wait`` may return
        self.say("hello")
        self._num_looked_at = len(self.frames)

    def say(self, kind: str, **fields: Any) -> list[Frame]:
        """Send an action and return the frames that came since the last call."""
        content = {**fields, "type": kind, "view": self.view}
        message = {"content": {"data": {"method": "custom", "content": content}}, "buffers": []}
        before = self.read()
        self.widget.comm.receive(message)
        return before + self._take()

    def read(self) -> list[Frame]:
        """The frames that came since the last call."""
        new = self._take()
        self._num_looked_at = len(self.frames)
        return new

    def _take(self) -> list[Frame]:
        new = frames_of(self.widget)[len(self.frames) :]
        self.frames += new
        if self.answers and new:
            answer = {"type": "ack", "view": self.view, "seq": new[-1].seq}
            self.widget._on_custom(self.widget, answer, [])
        return new

    def newest(self, kind: str) -> Frame:
        """The last frame of a kind that has come so far."""
        self.read()
        return next(frame for frame in reversed(self.frames) if frame.kind == kind)

    def wait(self, kind: str, timeout_s: float = 30.0) -> Frame:
        """Return the next frame of a kind, be it one that came at once when something was said."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._take()
            while self._num_looked_at < len(self.frames):
                frame = self.frames[self._num_looked_at]
                self._num_looked_at += 1
                if frame.kind == kind:
                    return frame
            time.sleep(0.01)
        raise AssertionError(f"no frame of kind {kind!r} in {timeout_s} s")

    def until(self, kind: str, holds: Callable[[Frame], bool], timeout_s: float = 30.0) -> Frame:
        """Return the first frame of a kind for which the condition holds."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.read()
            for frame in self.frames:
                if frame.kind == kind and holds(frame):
                    return frame
            time.sleep(0.01)
        raise AssertionError(f"no such frame of kind {kind!r} in {timeout_s} s")


def frames_of(widget: Any) -> list[Frame]:
    """Every frame that a widget has sent."""
    frames = []
    for content, buffers in widget.comm.messages:
        arrays = {
            head["name"]: np.frombuffer(raw, head["dtype"]).reshape(head["shape"])
            for head, raw in zip(content["arrays"], buffers, strict=True)
        }
        frames.append(
            Frame(content["kind"], content["meta"], arrays, content["seq"], content["full"])
        )
    return frames


@pytest.fixture(autouse=True)
def _fake_comms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def create_comm(*, data: dict[str, Any], comm_id: str | None = None, **_: Any) -> FakeComm:
        made.append(1)
        return FakeComm(comm_id or f"comm-{len(made)}", dict(data["state"]))

    made: list[int] = []
    monkeypatch.setattr(ipywidgets_widget.comm, "create_comm", create_comm)
    yield
    ipywidgets_widget.Widget.close_all()


@pytest.fixture
def open_page() -> type[Page]:
    """Open a tab on a widget: ``page = open_page(widget)``."""
    return Page
