// Shared by every widget: base.py puts this text before the widget's own module.
//
// A module draws and asks; what it knows came in frames. `mount` gives it a place in the page,
// `onFrame` its frames (acknowledged after they are drawn), `canvas` a sharp surface.

const NAMES = ["prefill", "decode", "preempted", "tokenize", "emit", "wait_blocks", "wait_budget",
  "wait_seqs", "wait_policy", "wait_grammar", "wait_host", "cached", "free", "shared", "text",
  "muted", "line", "panel", "accent", "error"];
const NUM_OWNERS = 12;
const FALLBACK_AFTER_MS = 2500;
// JupyterLab gives a new widget a thread of its own in the kernel only from its second message on;
// the first would wait for a cell that blocks, such as the next one of "run all".
const HELLO_AGAIN_MS = [500, 2000];

// ---- the page

/** Whether the page behind an element is dark, whichever front end painted it. */
function isDark(el) {
  for (let node = el; node; node = node.parentElement ?? node.getRootNode().host) {
    const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (parts && (parts.length < 4 || parts[3] > 0.5)) {
      return 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] < 128;
    }
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Make `el` the root of a widget; return {el, onTheme, dispose}. The theme is followed. */
function mount(el) {
  el.classList.add("tk");
  const listeners = new Set();
  const look = () => {
    const theme = el.isConnected && isDark(el.parentElement ?? el) ? "dark" : "light";
    if (theme === el.dataset.theme) return;
    el.dataset.theme = theme;
    el.tkColours = undefined;
    for (const listener of listeners) listener();
  };
  // Style sheets arrive after the attribute that names the theme.
  const soon = () => [0, 150, 600].forEach((delay) => setTimeout(look, delay));
  const observer = new MutationObserver(soon);
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true });
  }
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", soon);
  el.tkOnTheme = (listener) => (listeners.add(listener), () => listeners.delete(listener));
  look();
  soon();
  const dispose = () => (observer.disconnect(), media.removeEventListener("change", soon));
  return { el, onTheme: el.tkOnTheme, dispose };
}

/** The palette as the theme has it: colours(el).decode, colours(el).owners[3]. */
function colours(el) {
  const root = el.closest(".tk");
  if (root.tkColours) return root.tkColours;
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(`--tk-${name}`).trim();
  const all = Object.fromEntries(NAMES.map((name) => [name, read(name)]));
  all.owners = Array.from({ length: NUM_OWNERS }, (_, index) => read(`owner-${index}`));
  root.tkColours = all;
  return all;
}

/** Make an element: make("button", {title: "Next"}, "text", child). on* are listeners. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Make an element of a class in `parent`: element("div", "tk-bar", root, "text"). */
function element(tag, name, parent, text = "") {
  return parent.appendChild(make(tag, { class: name || undefined }, text));
}

/** A scale of the strengths that tokens are coloured with, between the names of its ends. */
function ramp(parent, low, high) {
  const scale = element("span", "tk-ramp", parent);
  element("span", "", scale, low);
  const swatches = element("span", "", scale);
  for (let i = 0; i <= 8; i++)
    element("span", "tk-token tk-swatch", swatches).style.setProperty("--strength", i / 8);
  element("span", "", scale, high);
}

/** A token's text with signs for what cannot be seen. */
function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "\u00a0") || "∅";
}

// ---- frames

const TYPED = { float32: Float32Array, float64: Float64Array, int8: Int8Array, int16: Int16Array,
  int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

/** Arrays by name from a message's buffers; each has .shape. */
function unpack(heads, buffers) {
  const arrays = {};
  heads.forEach(({ name, dtype, shape }, index) => {
    const view = buffers[index];
    const bytes = view.buffer
      ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)
      : view.slice(0);
    arrays[name] = Object.assign(new TYPED[dtype](bytes), { shape });
  });
  return arrays;
}

/**
 * Call handler(kind, meta, arrays, isFull) with every frame, and acknowledge it afterwards.
 * Errors from Python are shown in `el`; until the first frame comes, so is the fallback.
 * Returns {send(type, fields), close()}; a hidden page says goodbye and comes back by itself.
 */
function onFrame(model, handler, el) {
  const view = Math.random().toString(36).slice(2);
  const send = (type, fields = {}) => model.send({ ...fields, type, view });
  let isComplete = false;
  let trouble;
  let stale;
  let hidden = [];
  const showFallback = () => {
    if (isComplete || stale) return;
    stale = make("div", { class: "tk-fallback" });
    stale.innerHTML = model.get("_fallback") ?? "";
    stale.append(make("div", { class: "tk-note" }, "No answer from the kernel yet: " + (stale.innerHTML
      ? "this is the view as it was when the cell ran."
      : "the view appears as soon as the kernel is done with what it runs now.")));
    hidden = Array.from(el.children).filter((child) => !child.hidden);
    for (const child of hidden) child.hidden = true;
    el.append(stale);
  };
  const again = HELLO_AGAIN_MS.map((delay) =>
    setTimeout(() => isComplete || document.hidden || send("hello"), delay));
  const timer = setTimeout(showFallback, FALLBACK_AFTER_MS);
  const ready = () => {
    isComplete = true;
    if (!stale) return;
    stale.remove();
    stale = undefined;
    for (const child of hidden) child.hidden = false;
  };
  const listen = (message, buffers) => {
    if (message?.seq === undefined) return;
    const done = () => send("ack", { seq: message.seq });
    if (message.kind === "error") {
      trouble?.remove();
      trouble = make("div", { class: "tk-error", role: "alert" }, message.meta.message);
      el.append(trouble);
      return done();
    }
    if (message.full) ready();
    // A change is of no use to a page that does not know yet what has changed.
    if (message.kind === "ping" || !isComplete) return done();
    trouble?.remove();
    try {
      handler(message.kind, message.meta, unpack(message.arrays, buffers ?? []), message.full);
    } finally {
      if (document.hidden) done();
      else requestAnimationFrame(done);
    }
  };
  const onVisibility = () => send(document.hidden ? "bye" : "hello");
  model.on("msg:custom", listen);
  document.addEventListener("visibilitychange", onVisibility);
  addEventListener("pagehide", () => send("bye"), { once: true });
  send("hello");
  const close = () => {
    [...again, timer].forEach(clearTimeout);
    model.off("msg:custom", listen);
    document.removeEventListener("visibilitychange", onVisibility);
    send("bye");
  };
  return { send, close };
}

/** Tell Python that a frame was drawn; onFrame does it by itself. */
function ack(model, view, seq) {
  model.send({ type: "ack", view, seq });
}

// ---- drawing

/**
 * A canvas as wide as `el`, sharp on every screen, drawn again when its size or the theme changes.
 * draw(ctx, width, height, colours) is called once per animation frame at most.
 * Returns {node, redraw(), setHeight(px), width, height, dispose()}.
 */
function canvas(el, draw, { height = 200, label = "", focusable = false } = {}) {
  const node = make("canvas", { role: "img", "aria-label": label,
    tabindex: focusable ? "0" : undefined });
  el.append(node);
  const surface = { node, width: 0, height };
  let waiting = 0;
  const paint = () => {
    waiting = 0;
    surface.width = Math.max(1, el.clientWidth);
    const ratio = devicePixelRatio || 1;
    node.style.width = "100%";
    node.style.height = `${surface.height}px`;
    const [width, tall] = [surface.width, surface.height].map((size) => Math.round(size * ratio));
    if (node.width !== width || node.height !== tall) [node.width, node.height] = [width, tall];
    const context = node.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, surface.width, surface.height);
    context.font = "11px system-ui, sans-serif";
    draw(context, surface.width, surface.height, colours(el));
  };
  surface.redraw = () => (waiting ||= requestAnimationFrame(paint));
  surface.setHeight = (pixels) => {
    surface.height = pixels;
    surface.redraw();
  };
  let lastWidth = 0;
  const sizes = new ResizeObserver(() => {
    if (el.clientWidth === lastWidth) return; // its height is ours, and would call us for ever
    lastWidth = el.clientWidth;
    surface.redraw();
  });
  sizes.observe(el);
  const forget = el.closest(".tk").tkOnTheme(surface.redraw);
  surface.dispose = () => {
    sizes.disconnect();
    forget();
    cancelAnimationFrame(waiting);
  };
  surface.redraw();
  return surface;
}

/** Round numbers between low and high, about `count` of them. */
function ticks(low, high, count = 6) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + step * 1e-9; index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

/**
 * Draw an axis along the bottom ("x") or the left ("y") of a box, with grid lines and its unit.
 * box: {left, top, right, bottom}; scale maps a value to pixels.
 */
function axis(ctx, side, { box, low, high, scale, unit = "", palette, count, format = String }) {
  ctx.save();
  ctx.strokeStyle = palette.line;
  ctx.fillStyle = palette.muted;
  ctx.lineWidth = 1;
  const isX = side === "x";
  ctx.textAlign = isX ? "center" : "right";
  ctx.textBaseline = isX ? "top" : "middle";
  const length = isX ? box.right - box.left : box.bottom - box.top;
  for (const value of ticks(low, high, count ?? Math.max(2, length / (isX ? 90 : 28)))) {
    const at = Math.round(scale(value)) + 0.5;
    ctx.beginPath();
    if (isX) (ctx.moveTo(at, box.top), ctx.lineTo(at, box.bottom));
    else (ctx.moveTo(box.left, at), ctx.lineTo(box.right, at));
    ctx.stroke();
    // The unit has the end of an x axis to itself.
    const isFree = !isX || !unit || at < box.right - 14 - 6 * unit.length;
    if (isFree) ctx.fillText(format(value), isX ? at : box.left - 5, isX ? box.bottom + 4 : at);
  }
  if (isX && unit) {
    ctx.textAlign = "right";
    ctx.fillText(unit, box.right, box.bottom + 4);
  }
  ctx.restore();
}

/**
 * A tip beside the pointer: show(event, content) with text, a node, or rows [[name, value]].
 * It lies above the page, so that the end of a cell's output does not cut it off.
 */
function tooltip(el) {
  const node = make("div", { class: "tk-tip", role: "tooltip", popover: "manual" });
  node.hidden = true;
  el.append(node);
  const hide = () => {
    if (!node.hidden) node.hidePopover?.();
    node.hidden = true;
  };
  const show = (event, content) => {
    if (Array.isArray(content)) {
      const rows = content.filter((row) => row != null);
      node.replaceChildren(make("table", {}, ...rows.map(([name, value]) =>
        make("tr", {}, make("td", {}, String(name)), make("td", {}, String(value))))));
    } else node.replaceChildren(content);
    if (node.hidden) {
      node.hidden = false;
      node.showPopover?.();
      addEventListener("scroll", hide, { capture: true, once: true, passive: true });
    }
    const { clientX: x, clientY: y } = event;
    const [wide, tall] = [node.offsetWidth, node.offsetHeight];
    const left = x + 16 + wide > innerWidth ? x - 12 - wide : x + 16;
    const top = y + 14 + tall > innerHeight ? y - 10 - tall : y + 14;
    node.style.left = `${Math.max(0, Math.min(left, innerWidth - wide))}px`;
    node.style.top = `${Math.max(0, Math.min(top, innerHeight - tall))}px`;
  };
  return { node, show, hide };
}

/** Call map[event.key]() for keys pressed inside `el`, with "Shift+" before the name if held. */
function keys(el, map) {
  el.addEventListener("keydown", (event) => {
    const action = map[(event.shiftKey ? "Shift+" : "") + event.key];
    // Jupyter would move to another cell.
    if (!action || event.target.matches?.("input[type=text], textarea, select")) return;
    event.preventDefault();
    event.stopPropagation();
    action(event);
  });
}

/** A legend: legend(el, [[colour or CSS background, text]]). */
function legend(el, entries) {
  el.classList.add("tk-legend");
  el.replaceChildren(...entries.map(([paint, text]) => {
    const swatch = make("i", { class: "tk-swatch" });
    swatch.style.background = paint;
    return make("span", {}, swatch, text);
  }));
}

/** 0.00123 -> "1.23 ms". */
function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0 s";
  const size = Math.abs(value);
  if (size < 1e-3) return `${(value * 1e6).toPrecision(3)} µs`;
  if (size < 1) return `${(value * 1e3).toPrecision(3)} ms`;
  return size < 100 ? `${value.toPrecision(3)} s` : `${value.toFixed(0)} s`;
}

