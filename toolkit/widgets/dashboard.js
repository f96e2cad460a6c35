// Lanes over the same seconds, one cursor through all of them. Python sends the whole window each
// time (240 bins, 11 KB): a frame that is skipped leaves no hole.

const SIDE = 168; // the readouts, right of the lanes
const LEFT = 46;
const AXIS = 20;
const GAP = 8;
const percent = (value) => (Number.isFinite(value)
  ? `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %` : "–");
const count = (value) => (Number.isFinite(value) ? Math.round(value).toLocaleString("en") : "–");

// kind "stack": areas on top of each other; "lines": on a log axis. [lane, colour, name, dashed]
const VIEWS = [
  { title: "Output tokens/s", height: 66, kind: "stack", format: count,
    parts: [["output_tokens_per_s", "decode", "tokens/s"]] },
  { title: "Requests", height: 58, kind: "stack", format: count,
    parts: [["num_running", "decode", "running"], ["num_waiting", "wait_seqs", "waiting"]] },
  { title: "Latency, log", height: 96, kind: "lines", format: seconds,
    parts: [["ttft_p50_s", "prefill", "TTFT p50"], ["ttft_p99_s", "prefill", "TTFT p99", true],
      ["itl_p50_s", "decode", "ITL p50"], ["itl_p99_s", "decode", "ITL p99", true]] },
  { title: "KV cache", height: 50, kind: "stack", format: percent, top: 1,
    parts: [["kv_held", "decode", "held"], ["kv_cached", "cached", "cached"]] },
  { title: "Prefix hits", height: 36, kind: "stack", format: percent, top: 1,
    parts: [["prefix_hit_rate", "cached", "of prompt tokens"]] },
  { title: "Kernel busy", height: 36, kind: "stack", format: percent, top: 1,
    tells: "There were requests, but the interpreter did something else than steps",
    parts: [["host_busy", "wait_host", "of the time"]] },
];
const HEIGHT = VIEWS.reduce((sum, view) => sum + view.height + GAP, 0) + AXIS;

/** A power of ten of seconds: "10 ms". */
function decade(value) {
  const [size, unit] = value < 9e-4 ? [1e6, "µs"] : value < 0.9 ? [1e3, "ms"] : [1, "s"];
  return `${Math.round(value * size)} ${unit}`;
}

/** Round up to 1, 2 or 5 times a power of ten. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= value);
}

function render({ model, el }) {
  const page = mount(el);
  const state = { lanes: {}, num: 0, first: 0, bin_s: 1, now_s: 0, is_live: false, cursor: null,
    drag: null, brush: null, from: 0, to: 1 };

  // ---- the parts of the page
  const button = (text, title, action) => make("button", { type: "button", title, onclick: action }, text);
  const pause = button("Pause", "Hold the view still (Space); the engine runs on", () => togglePause());
  const load = button("Start load", "", () => frames.send("load", { on: load.dataset.on !== "true" }));
  const snapshot = button("Snapshot", "Keep these numbers in dashboard.snapshots",
    () => frames.send("snapshot"));
  const clear = button("Clear selection", "Mark nothing (Escape)", () => frames.send("clear"));
  const status = make("span", { class: "tk-muted tk-status", role: "status" });
  const marked = make("span", { class: "tk-selection" });
  el.append(make("div", { class: "tk-bar" }, pause, load, snapshot, clear, marked, status));
  load.hidden = clear.hidden = true;

  const span = make("select", { title: "How much is shown", onchange: () => move() },
    ...[["0", "all"], ["300", "5 min"], ["60", "60 s"], ["10", "10 s"]].map(([value, text]) =>
      make("option", { value }, text)));
  const slider = make("input", { type: "range", min: "0", max: "1000", value: "1000",
    "aria-label": "Place in the record", oninput: () => move() });
  const place = make("div", { class: "tk-bar" }, make("label", {}, "show ", span),
    make("span", { class: "tk-grow" }, slider));
  place.style.display = "none";
  el.append(place);

  const row = make("div", { style: "display:flex" });
  const lanes = make("div", { style: "flex:1 1 auto;min-width:0;position:relative" });
  const side = make("div", { class: "tk-readouts tk-number",
    style: `flex:0 0 ${SIDE}px;position:relative;height:${HEIGHT}px;padding-left:8px;font-size:11px;line-height:1.35` });
  row.append(lanes, side);
  el.append(row);
  let top = 0;
  const readouts = VIEWS.map((view) => {
    const values = view.parts.map(([lane, colour, name, dashed]) => {
      const value = make("b", { "data-lane": lane }, "–");
      const swatch = make("i", { class: "tk-swatch" });
      swatch.style.cssText += dashed
        ? `height:0;border-top:2px dotted var(--tk-${colour});border-radius:0;vertical-align:3px`
        : `background:var(--tk-${colour})`;
      return { lane, value, node: make("div", {}, swatch, value, ` ${name}`) };
    });
    const head = make("div", { class: "tk-muted", title: view.tells ?? "" }, view.title);
    const node = make("div", { style: `position:absolute;top:${top}px` }, head,
      ...values.map((value) => value.node));
    top += view.height + GAP;
    side.append(node);
    return { view, values };
  });

  // ---- places and moments
  const shown = () => ({ from: state.from, to: Math.max(state.from + 1, state.to) });
  const box = (width) => ({ left: LEFT, right: Math.max(LEFT + 10, width - 4) });
  const toX = (bin, width) => {
    const { left, right } = box(width);
    const { from, to } = shown();
    return left + ((bin - from) / (to - from)) * (right - left);
  };
  const toBin = (x, width) => {
    const { left, right } = box(width);
    const { from, to } = shown();
    return from + ((x - left) / (right - left)) * (to - from);
  };
  const toSeconds = (bin) => (state.first + bin) * state.bin_s;
  const asTime = (bin) => {
    const at = toSeconds(bin);
    if (!state.is_live) return `${at.toFixed(at < 100 ? 2 : 0)} s`;
    const ago = Math.max(0, state.now_s - at);
    return ago < state.bin_s ? "now" : `${ago.toFixed(1)} s ago`;
  };

  // ---- drawing
  const surface = canvas(lanes, draw, { height: HEIGHT, focusable: true,
    label: "Lanes over time. Arrows move the cursor, Shift marks a span, Escape clears it." });

  function draw(ctx, width, height, palette) {
    const { from, to } = shown();
    let y = 0;
    for (const view of VIEWS) {
      const area = { ...box(width), top: y + 2, bottom: y + view.height };
      ctx.save();
      ctx.strokeStyle = palette.line;
      ctx.strokeRect(area.left - 0.5, area.top - 0.5, area.right - area.left + 1, area.bottom - area.top + 1);
      (view.kind === "lines" ? drawLines : drawStack)(ctx, view, area, width, palette, from, to);
      ctx.restore();
      y += view.height + GAP;
    }
    drawAxis(ctx, width, y, palette, from, to);
    drawMarks(ctx, width, y - GAP, palette);
  }

  function drawStack(ctx, view, area, width, palette, from, to) {
    const [low, high] = [Math.max(0, Math.floor(from)), Math.min(state.num, Math.ceil(to))];
    const parts = view.parts.map(([lane, colour]) => ({ values: state.lanes[lane], colour }));
    let top = view.top ?? 0;
    if (!view.top) {
      for (let bin = low; bin < high; bin += 1) {
        top = Math.max(top, parts.reduce((sum, part) => sum + (part.values[bin] || 0), 0));
      }
      top = roundUp(top);
    }
    const scale = (value) => area.bottom - (value / top) * (area.bottom - area.top);
    scaleLabels(ctx, area, palette, [[0, scale(0)], [top, scale(top)]], view.format);
    clip(ctx, area);
    const base = new Float32Array(Math.max(0, high - low));
    for (const { values, colour } of parts) {
      ctx.fillStyle = palette[colour];
      ctx.beginPath();
      for (let bin = low; bin < high; bin += 1) {
        const value = values[bin] || 0;
        if (value <= 0) continue;
        const [x, next] = [toX(bin, width), toX(bin + 1, width)];
        const below = base[bin - low];
        const [bottom, head] = [scale(below), scale(below + value)];
        // What is not nothing is seen.
        ctx.rect(x, Math.min(head, bottom - 1), Math.max(0.5, next - x), Math.max(1, bottom - head));
        base[bin - low] = below + value;
      }
      ctx.fill();
    }
  }

  function drawLines(ctx, view, area, width, palette, from, to) {
    let [low, high] = [Infinity, 0];
    const [start, end] = [Math.max(0, Math.floor(from)), Math.min(state.num, Math.ceil(to))];
    for (const [lane] of view.parts) {
      for (let bin = start; bin < end; bin += 1) {
        const value = state.lanes[lane][bin];
        if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
      }
    }
    if (!(high > 0)) [low, high] = [1e-3, 1];
    low = 10 ** Math.floor(Math.log10(low));
    high = 10 ** Math.max(Math.ceil(Math.log10(high)), Math.log10(low) + 1);
    const scale = (value) => area.bottom
      - (Math.log10(value / low) / Math.log10(high / low)) * (area.bottom - area.top);
    const decades = [];
    for (let value = low; value <= high * 1.001; value *= 10) decades.push([value, scale(value)]);
    scaleLabels(ctx, area, palette, decades, decade);
    clip(ctx, area);
    for (const [lane, colour, , dashed] of view.parts) {
      const values = state.lanes[lane];
      ctx.strokeStyle = ctx.fillStyle = palette[colour];
      ctx.setLineDash(dashed ? [2, 2] : []);
      ctx.lineWidth = dashed ? 1 : 1.5;
      ctx.beginPath();
      let last = -Infinity;
      for (let bin = start; bin < end; bin += 1) {
        if (!(values[bin] > 0)) continue;
        const [x, y] = [toX(bin + 0.5, width), scale(values[bin])];
        // A line says that nothing was different in between: not across seconds of silence.
        if (bin - last > 4) ctx.moveTo(x, y);
        else ctx.lineTo(x, y);
        ctx.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
        last = bin;
      }
      ctx.stroke();
    }
  }

  function scaleLabels(ctx, area, palette, marks, format) {
    ctx.fillStyle = palette.muted;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.strokeStyle = palette.line;
    ctx.beginPath();
    for (const [value, y] of marks) {
      ctx.fillText(format(value), area.left - 4, Math.min(area.bottom - 5, Math.max(area.top + 5, y)));
      ctx.moveTo(area.left, Math.round(y) + 0.5);
      ctx.lineTo(area.right, Math.round(y) + 0.5);
    }
    ctx.stroke();
  }

  function clip(ctx, area) {
    ctx.beginPath();
    ctx.rect(area.left, area.top - 2, area.right - area.left, area.bottom - area.top + 3);
    ctx.clip();
  }

  function drawAxis(ctx, width, y, palette, from, to) {
    ctx.fillStyle = palette.muted;
    ctx.textBaseline = "top";
    const offset = state.is_live ? state.now_s : 0;
    const [low, high] = [toSeconds(from) - offset, toSeconds(to) - offset];
    const { left, right } = box(width);
    for (const value of ticks(low, high, Math.max(2, (right - left) / 90))) {
      const x = toX((value + offset) / state.bin_s - state.first, width);
      if (x < left || x > right) continue;
      ctx.textAlign = x > right - 20 ? "right" : "center";
      const text = state.is_live && value === 0 ? "now" : `${value} s`.replace("-", "−");
      ctx.fillText(text, x, y - GAP + 4);
      ctx.fillRect(Math.round(x), y - GAP, 1, 3);
    }
  }

  function drawMarks(ctx, width, bottom, palette) {
    const { left, right } = box(width);
    const brush = state.drag ?? state.brush;
    if (brush) {
      const [a, b] = brush.map((at) => toX(at / state.bin_s - state.first, width));
      const [x, end] = [Math.max(left, Math.min(a, b)), Math.min(right, Math.max(a, b))];
      ctx.globalAlpha = 0.16;
      ctx.fillStyle = palette.accent;
      if (end > x) ctx.fillRect(x, 0, end - x, bottom);
      ctx.globalAlpha = 1;
    }
    if (state.cursor == null) return;
    const x = Math.round(toX(Math.floor(state.cursor) + 0.5, width)) + 0.5;
    if (x < left || x > right) return;
    ctx.strokeStyle = palette.text;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(x, 0);
    ctx.lineTo(x, bottom);
    ctx.stroke();
  }

  /** Say the numbers under the cursor, or the newest ones. */
  function read() {
    let bin = state.cursor == null ? state.num - 1 : Math.floor(state.cursor);
    // The last bin of a live view has only begun.
    if (state.cursor == null && state.is_live) bin -= 1;
    bin = Math.min(state.num - 1, Math.max(0, bin));
    for (const { view, values } of readouts) {
      for (const { lane, value } of values) {
        const text = view.format(newest(state.lanes[lane] ?? [], bin));
        if (value.textContent !== text) value.textContent = text;
      }
    }
    status.textContent = state.is_paused ? `paused at ${toSeconds(state.num - 1).toFixed(0)} s`
      : state.cursor == null ? (state.is_live ? "live" : "") : asTime(bin);
  }
  const show = () => (surface.redraw(), read());

  /** A value of this bin; without a cursor, the last one that was measured in a few seconds. */
  function newest(values, bin) {
    const oldest = state.cursor == null ? Math.max(0, bin - 20) : bin;
    for (let each = bin; each > oldest && !Number.isFinite(values[each]); each -= 1) bin = each - 1;
    return values[bin] ?? NaN;
  }

  // ---- what a person does
  const at = (event) => toBin(event.clientX - surface.node.getBoundingClientRect().left, surface.width);
  surface.node.style.touchAction = "pan-y";
  surface.node.addEventListener("pointerdown", (event) => {
    surface.node.focus();
    surface.node.setPointerCapture(event.pointerId);
    state.drag = [toSeconds(at(event)), toSeconds(at(event))];
    show();
  });
  surface.node.addEventListener("pointermove", (event) => {
    state.cursor = Math.min(state.num - 1, Math.max(0, at(event)));
    if (state.drag) state.drag[1] = toSeconds(at(event));
    show();
  });
  surface.node.addEventListener("pointerup", () => {
    const drag = state.drag;
    state.drag = null;
    if (drag && Math.abs(drag[1] - drag[0]) > 0.5 * state.bin_s) choose(...drag);
    show();
  });
  surface.node.addEventListener("pointercancel", () => ((state.drag = null), show()));
  surface.node.addEventListener("pointerleave", () => ((state.cursor = null), show()));
  function choose(a_s, b_s) {
    state.brush = [a_s, b_s]; // as it will be: Python says so a moment later
    frames.send("select", { a_s: Math.min(a_s, b_s), b_s: Math.max(a_s, b_s) });
  }
  function step(size, isMarking) {
    const before = state.cursor ?? shown().to - 1;
    state.cursor = Math.min(state.num - 1, Math.max(0, before + size));
    if (isMarking) {
      const anchor = state.brush ? state.brush[0] : toSeconds(Math.floor(before));
      choose(anchor, toSeconds(Math.floor(state.cursor) + 1));
    }
    show();
  }
  const togglePause = () => frames.send(state.is_paused ? "resume" : "pause");
  keys(surface.node, {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    "Shift+ArrowLeft": () => step(-1, true), "Shift+ArrowRight": () => step(1, true),
    Home: () => step(-Infinity), End: () => step(Infinity),
    Escape: () => (state.brush ? frames.send("clear") : ((state.cursor = null), show())),
    " ": () => state.is_live && togglePause(),
  });

  /** Show the part of a recorded run that select and slider name. */
  function move() {
    const wanted = Number(span.value) / state.bin_s;
    slider.disabled = !(wanted > 0 && wanted < state.num);
    if (slider.disabled) [state.from, state.to] = [0, state.num];
    else {
      state.from = (Number(slider.value) / 1000) * (state.num - wanted);
      state.to = state.from + wanted;
    }
    show();
  }

  // ---- what Python says
  const frames = onFrame(model, (kind, meta, arrays) => {
    if (kind === "lanes") {
      const [, num] = arrays.lanes.shape;
      // The cursor stays at its moment while the window moves on.
      if (state.cursor != null && state.is_live) state.cursor -= meta.first - state.first;
      if (state.cursor < 0) state.cursor = null;
      meta.lanes.forEach((name, index) => {
        state.lanes[name] = arrays.lanes.subarray(index * num, (index + 1) * num);
      });
      Object.assign(state, { num, first: meta.first, bin_s: meta.bin_s, now_s: meta.now_s,
        is_live: meta.is_live, is_paused: meta.is_paused });
      pause.hidden = !meta.is_live;
      pause.textContent = meta.is_paused ? "Resume" : "Pause";
      pause.setAttribute("aria-pressed", String(meta.is_paused));
      snapshot.textContent = meta.num_snapshots ? `Snapshot (${meta.num_snapshots} kept)` : "Snapshot";
      load.hidden = !meta.load || !meta.is_live;
      if (meta.load) {
        load.dataset.on = String(meta.load.is_on);
        load.textContent = meta.load.is_on ? "Stop load" : "Start load";
        load.title = meta.load.error || meta.load.name;
        load.style.color = meta.load.error ? "var(--tk-error)" : "";
      }
      place.style.display = meta.is_live ? "none" : "";
      if (meta.is_live) ([state.from, state.to] = [0, num], show());
      else move();
    } else if (kind === "selection") {
      state.brush = meta.a_s == null ? null : [meta.a_s, meta.b_s];
      clear.hidden = !state.brush;
      marked.textContent = !state.brush ? "" : `${meta.num_requests} requests in `
        + `${seconds(meta.b_s - meta.a_s)}, TTFT p50 ${seconds(meta.ttft_s_p50 ?? NaN)}`;
      show();
    }
  }, el);
  return () => (frames.close(), surface.dispose(), page.dispose());
}

export default { render };
