"""A page with one widget and nothing else: its Python half lives in the test, without a kernel.

Fast enough for every click; what JupyterLab adds is checked in ``lab.py``.
"""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any

_LONG_ENOUGH_S = 1.0  # four frames of the busiest widget

_PAGE = """<!doctype html><meta charset="utf-8"><title>a widget</title>
<style>body { margin: 8px; background: %(background)s }</style><style>%(css)s</style>
<div id="widget"></div>
<script type="module">
const state = %(state)s;
const listeners = new Map();
window.model = {
  get: (name) => state[name],
  set: (name, value) => (state[name] = value),
  save_changes() {},
  send: (content) => void window.toPython(content),
  on: (name, fn) => listeners.set(name, [...(listeners.get(name) ?? []), fn]),
  off: (name, fn) => listeners.set(name, (listeners.get(name) ?? []).filter((x) => x !== fn)),
};
window.fromPython = (content, buffers) => {
  const views = buffers.map((text) =>
    new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
  for (const fn of listeners.get("msg:custom") ?? []) fn(content, views);
};
const code = new Blob([state._esm], { type: "text/javascript" });
const { default: widget } = await import(URL.createObjectURL(code));
window.show = async () => {
  const el = document.createElement("div");
  document.getElementById("widget").append(el);
  window.hide = await widget.render({ model: window.model, el });
};
await window.show();
window.isReady = true;
</script>"""


class BarePage:
    """A widget in a page; every call lets messages pass both ways."""

    def __init__(self, page: Any, widget: Any, *, theme: str = "light") -> None:
        import json

        self.page, self.widget = page, widget
        self.errors: list[str] = []
        self.sent: list[dict[str, Any]] = []  # what the page said
        self._num_read = 0
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        page.expose_function("toPython", self._on_message)
        state = {key: value for key, value in widget.get_state().items() if isinstance(value, str)}
        html = _PAGE % {
            "state": json.dumps(state).replace("</", "<\\/"),
            "css": state["_css"],
            "background": "#fff" if theme == "light" else "#111",
        }
        page.set_content(html)
        page.wait_for_function("window.isReady")
        self.settle()

    def _on_message(self, content: dict[str, Any]) -> None:
        self.sent.append(content)
        self.widget._on_custom(self.widget, content, [])

    def settle(self, seconds: float = 0.25) -> None:
        """Carry messages until none has come for so long; a live widget never falls silent."""
        started = quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < seconds:
            if time.monotonic() - started > _LONG_ENOUGH_S + seconds:
                return
            self.widget._frames.flush()
            messages = self.widget.comm.messages[self._num_read :]
            self._num_read += len(messages)
            for content, buffers in messages:
                texts = [b64encode(bytes(buffer)).decode() for buffer in buffers]
                self.page.evaluate("([c, b]) => window.fromPython(c, b)", [content, texts])
            if messages:
                quiet_since = time.monotonic()
            self.page.wait_for_timeout(15)

    @property
    def root(self) -> Any:
        """The widget's element."""
        return self.page.locator(".tk")

    def picture(self, index: int = 0) -> str:
        """What a canvas shows, as a data URL; compare two of them."""
        self.settle()
        return str(
            self.page.locator(".tk canvas").nth(index).evaluate("(node) => node.toDataURL()")
        )
