const KINDS = ["tokenize", "prefill", "decode", "preempted", "emit", "wait_budget", "wait_seqs",
  "wait_blocks", "wait_policy", "wait_grammar", "wait_host"];
const KIND_NAMES = { tokenize: "tokenize", prefill: "prefill chunk", decode: "decode",
  preempted: "preempted", emit: "send", wait_budget: "wait for budget", wait_seqs: "wait for seqs",
  wait_blocks: "wait for blocks", wait_policy: "wait for policy", wait_grammar: "wait for grammar",
  wait_host: "wait for host" };
const FIRST_WAIT = 5;
const [TOKENIZE, EMIT] = [0, 4]; // outside steps: not drawn over steps
const [LABELS, LANE, AXIS, GAP] = [118, 44, 20, 8]; // pixels
const [MAX_ROWS_HEIGHT, MIN_ROW, MAX_ROW] = [420, 3, 16];
const LANE_ARRAYS = ["step", "step_start", "step_s", "step_tokens", "budget", "kv_percent"];

export default {
  render({ model, el }) {
    const page = mount(el);
    let requests = new Map(); // id -> {id, arrival, ttft, tags, spans}
    let rows = []; // in the order of the rows
    let steps = Object.fromEntries(LANE_ARRAYS.map((name) => [name, []]));
    let [unit, sort, note, isLive, maximum] = ["seconds", "arrival", "", false, 2000];
    let numRequests = 0;
    let view = { x0: 0, x1: 1, y: 0, isWhole: true, isFitted: false };
    let cursor = { row: -1, step: -1 };
    let selected = new Set();
    let brush = null; // {x0, y0, x1, y1} in pixels
    let pinned = null;

    // ---- controls

    const order = make("select", { "aria-label": "Order of the rows",
      onchange: () => (sort = order.value, arrange()) });
    const units = ["seconds", "steps"].map((name) =>
      make("button", { onclick: () => setUnit(name), title: `Columns are ${name}` }, name));
    const whole = make("button", { title: "Show everything (Escape)", onclick: showWhole }, "Whole");
    const fit = make("button", { title: "All rows at once, or rows that can be read (f)",
      onclick: toggleFit }, "Fit rows");
    const said = make("span", { class: "tk-muted tk-number" }, "Waiting for the kernel");
    const place = make("div", { style: "position:relative" });
    const key = make("div");
    const why = make("div", { class: "tk-why", "aria-live": "polite" });
    const noted = make("div", { class: "tk-note" });
    el.append(make("div", { class: "tk-bar" }, make("label", {}, "Rows by ", order),
      make("span", {}, ...units), whole, fit, said), place, key, noted, why);
    const surface = canvas(place, draw, { height: 160, focusable: true,
      label: "Timeline of requests; arrow keys step, plus and minus zoom, Enter explains" });
    surface.node.style.touchAction = "none";
    const tip = tooltip(place);

    function setUnit(name) {
      unit = name;
      showWhole();
    }

    function toggleFit() {
      view.isFitted = !view.isFitted;
      view.y = 0;
      showText();
      surface.redraw();
    }

    function showWhole() {
      Object.assign(view, { x0: limits().low, x1: limits().high, y: 0, isWhole: true });
      showText();
      surface.redraw();
    }

    // ---- geometry

    const numSteps = () => steps.step.length;
    const stepEnd = (index) => steps.step_start[index] + steps.step_s[index];

    function limits() {
      if (unit === "steps") {
        return numSteps()
          ? { low: steps.step[0], high: steps.step[numSteps() - 1] + 1 } : { low: 0, high: 1 };
      }
      let [low, high] = [Infinity, -Infinity];
      for (const { spans } of rows) {
        if (!spans.start.length) continue;
        low = Math.min(low, spans.start[0]);
        high = Math.max(high, spans.end[spans.end.length - 1]);
      }
      if (numSteps()) {
        low = Math.min(low, steps.step_start[0]);
        high = Math.max(high, stepEnd(numSteps() - 1));
      }
      return high > low ? { low, high } : { low: 0, high: 1 };
    }

    function geometry() {
      const wanted = Math.max(1, rows.length);
      const high = view.isFitted
        ? Math.min(MAX_ROW, MAX_ROWS_HEIGHT / wanted)
        : Math.min(MAX_ROW, Math.max(MIN_ROW, MAX_ROWS_HEIGHT / wanted));
      const bottom = Math.max(30, Math.min(MAX_ROWS_HEIGHT, high * wanted));
      const box = { left: LABELS, right: surface.width - 8, top: 0, bottom };
      const scale = (x) => box.left + ((x - view.x0) / (view.x1 - view.x0)) * (box.right - box.left);
      const value = (pixel) =>
        view.x0 + ((pixel - box.left) / (box.right - box.left)) * (view.x1 - view.x0);
      const lanes = [0, 1].map((index) => {
        const top = bottom + GAP + index * (LANE + GAP);
        return { left: box.left, right: box.right, top, bottom: top + LANE };
      });
      return { high, box, scale, value, lanes, height: lanes[1].bottom + AXIS };
    }

    function bounds(spans, index) {
      return unit === "seconds"
        ? [spans.start[index], spans.end[index]]
        : [spans.first_step[index], spans.last_step[index] + 1];
    }

    const stepBounds = (index) => unit === "seconds"
      ? [steps.step_start[index], stepEnd(index)] : [steps.step[index], steps.step[index] + 1];

    /** The last step that begins at or before x; -1 before the first. */
    function stepAt(x) {
      const begins = unit === "seconds" ? steps.step_start : steps.step;
      let [low, high] = [0, begins.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (begins[middle] <= x) low = middle + 1;
        else high = middle;
      }
      return low - 1;
    }

    // ---- drawing

    function draw(ctx, width, height, palette) {
      const at = geometry();
      if (Math.abs(at.height - height) > 1) return surface.setHeight(at.height);
      const { box, scale, lanes } = at;
      const frame = { left: box.left, right: box.right, top: 0, bottom: lanes[1].bottom };
      axis(ctx, "x", { box: frame, low: view.x0, high: view.x1, scale, palette,
        unit: unit === "seconds" ? "s" : "step" });
      if (!rows.length) {
        ctx.fillStyle = palette.muted;
        ctx.fillText(note ? "" : "No request yet.", box.left + 8, 20);
      }
      drawRows(ctx, at, palette);
      drawLane(ctx, at, lanes[0], palette, "tokens", steps.step_tokens, laneTop(), palette.prefill);
      drawLane(ctx, at, lanes[1], palette, "KV in %", steps.kv_percent, 100, palette.decode);
      drawBudget(ctx, at, lanes[0], palette);
      drawMarks(ctx, at, palette);
    }

    const laneTop = () => {
      let most = 1;
      for (let index = 0; index < numSteps(); index += 1) {
        most = Math.max(most, steps.step_tokens[index], steps.budget[index]);
      }
      return most;
    };

    function drawRows(ctx, { high, box, scale }, palette) {
      const paints = KINDS.map((name) => palette[name]);
      const first = Math.max(0, Math.floor(view.y));
      const last = Math.min(rows.length, first + Math.ceil(box.bottom / high) + 1);
      ctx.save();
      ctx.beginPath();
      ctx.rect(0, box.top, surface.width, box.bottom);
      ctx.clip();
      ctx.textBaseline = "middle";
      ctx.textAlign = "right";
      for (let row = first; row < last; row += 1) {
        const y = (row - view.y) * high;
        const { id, spans } = rows[row];
        if (selected.has(id)) {
          ctx.fillStyle = palette.accent;
          ctx.globalAlpha = 0.18;
          ctx.fillRect(0, y, surface.width, Math.max(1, high));
          ctx.globalAlpha = 1;
        }
        if (high >= 10) {
          ctx.fillStyle = id === pinned ? palette.accent : palette.text;
          ctx.fillText(id.length > 18 ? `…${id.slice(-17)}` : id, box.left - 6, y + high / 2);
        }
        drawSpans(ctx, spans, y, { high, box, scale, paints });
      }
      ctx.restore();
    }

    function drawSpans(ctx, spans, y, { high, box, scale, paints }) {
      const gap = high > 5 ? 1 : 0;
      let drawnTo = -Infinity;
      for (let index = 0; index < spans.kind.length; index += 1) {
        const kind = spans.kind[index];
        if (unit === "steps" && (kind === TOKENIZE || kind === EMIT)) continue;
        const [start, end] = bounds(spans, index);
        if (end < view.x0) continue;
        if (start > view.x1) break;
        const left = Math.max(box.left, scale(start));
        const right = Math.min(box.right, scale(end));
        // Several spans within a pixel: the first stands for all.
        if (right < drawnTo + 0.4) continue;
        drawnTo = right;
        ctx.fillStyle = paints[kind];
        const isWait = kind >= FIRST_WAIT;
        const tall = Math.max(0.5, (high - gap) * (isWait && high >= 4 ? 0.4 : 1));
        const shift = (high - gap - tall) / 2;
        ctx.fillRect(left, y + shift, Math.max(0.8, right - left), tall);
      }
    }

    function drawLane(ctx, { scale }, lane, palette, name, values, top, paint) {
      ctx.fillStyle = palette.muted;
      ctx.textAlign = "right";
      ctx.textBaseline = "middle";
      ctx.fillText(name, lane.left - 6, (lane.top + lane.bottom) / 2);
      ctx.textBaseline = "top";
      ctx.fillText(String(top), lane.left - 6, lane.top - 2);
      ctx.strokeStyle = palette.line;
      ctx.strokeRect(lane.left + 0.5, lane.top + 0.5, lane.right - lane.left - 1, LANE - 1);
      ctx.fillStyle = paint;
      let [column, tallest] = [-1, 0];
      for (let index = Math.max(0, stepAt(view.x0)); index < numSteps(); index += 1) {
        const [start, end] = stepBounds(index);
        if (start > view.x1) break;
        const left = Math.max(lane.left, scale(start));
        const right = Math.min(lane.right, scale(end));
        if (right < left) continue;
        const tall = (LANE * values[index]) / top;
        // Of the steps within a pixel the tallest is drawn.
        if (Math.floor(left) === column && right - left < 1 && tall <= tallest) continue;
        tallest = Math.floor(left) === column ? Math.max(tall, tallest) : tall;
        column = Math.floor(left);
        const from = Math.floor(left); // whole pixels: no hairlines between neighbours
        ctx.fillRect(from, lane.bottom - tall, Math.max(1, Math.ceil(right) - from), tall);
      }
    }

    function drawBudget(ctx, { scale }, lane, palette) {
      ctx.strokeStyle = palette.text;
      ctx.lineWidth = 1;
      ctx.setLineDash([4, 3]);
      ctx.beginPath();
      const top = laneTop();
      let was = -1;
      for (let index = Math.max(0, stepAt(view.x0)); index < numSteps(); index += 1) {
        const [start, end] = stepBounds(index);
        if (start > view.x1) break;
        const y = lane.bottom - (LANE * steps.budget[index]) / top;
        if (y !== was) ctx.moveTo(Math.max(lane.left, scale(start)), (was = y));
        ctx.lineTo(Math.min(lane.right, scale(end)), y);
      }
      ctx.stroke();
      ctx.setLineDash([]);
    }

    function drawMarks(ctx, { high, box, scale, lanes }, palette) {
      ctx.strokeStyle = palette.text;
      ctx.lineWidth = 1;
      if (cursor.step >= 0 && cursor.step < numSteps()) {
        const [start, end] = stepBounds(cursor.step).map(scale);
        if (start <= box.right && end >= box.left) {
          const left = Math.max(box.left, start);
          ctx.globalAlpha = 0.14;
          ctx.fillStyle = palette.text;
          ctx.fillRect(left, 0, Math.max(1, Math.min(box.right, end) - left), lanes[1].bottom);
          ctx.globalAlpha = 1;
        }
      }
      if (cursor.row >= 0) {
        const y = (cursor.row - view.y) * high;
        if (y >= 0 && y < box.bottom) ctx.strokeRect(0.5, y, box.right, Math.max(2, high));
      }
      if (rows.length * high > box.bottom + 1) { // where these rows are among all
        const share = box.bottom / (rows.length * high);
        ctx.fillStyle = palette.muted;
        ctx.fillRect(box.right + 4, (view.y / rows.length) * box.bottom, 3,
          Math.max(12, share * box.bottom));
      }
      if (brush) {
        ctx.setLineDash([3, 3]);
        ctx.strokeRect(brush.x0, brush.y0, brush.x1 - brush.x0, brush.y1 - brush.y0);
        ctx.setLineDash([]);
      }
    }

    // ---- moving

    function zoom(factor, around = (view.x0 + view.x1) / 2) {
      const { low, high } = limits();
      const least = unit === "steps" ? 2 : Math.max(1e-6, (high - low) * 1e-6);
      const span = Math.max(least, (view.x1 - view.x0) * factor);
      if (span >= high - low) return showWhole();
      const share = (around - view.x0) / (view.x1 - view.x0);
      view.x0 = around - share * span;
      panTo(view.x0, span);
    }

    function panTo(x0, span = view.x1 - view.x0) {
      const { low, high } = limits();
      view.x0 = Math.min(Math.max(x0, low), Math.max(low, high - span));
      view.x1 = view.x0 + span;
      view.isWhole = span >= high - low;
      surface.redraw();
    }

    function scrollTo(y) {
      const { high, box } = geometry();
      view.y = Math.min(Math.max(0, y), Math.max(0, rows.length - box.bottom / high));
      surface.redraw();
    }

    function goStep(by) {
      if (!numSteps()) return;
      const from = cursor.step < 0 ? stepAt(view.x0) - Math.sign(by) : cursor.step;
      cursor.step = Math.min(Math.max(from + by, 0), numSteps() - 1);
      const [start, end] = stepBounds(cursor.step);
      if (start < view.x0) panTo(start);
      if (end > view.x1) panTo(end - (view.x1 - view.x0));
      const { scale, lanes } = geometry();
      tellAt(scale(start), lanes[0].top, stepFacts(cursor.step));
      surface.redraw();
    }

    function goRow(by, extends_) {
      if (!rows.length) return;
      const from = cursor.row;
      cursor.row = Math.min(Math.max(from + by, 0), rows.length - 1);
      if (extends_) select([...selected, rows[Math.max(0, from)].id, rows[cursor.row].id]);
      const { high, box } = geometry();
      if (cursor.row < view.y) scrollTo(cursor.row);
      if ((cursor.row + 1 - view.y) * high > box.bottom) scrollTo(cursor.row + 1 - box.bottom / high);
      tellAt(box.left, (cursor.row - view.y) * high, requestFacts(rows[cursor.row]));
      surface.redraw();
    }

    keys(el, {
      ArrowLeft: () => goStep(-1),
      ArrowRight: () => goStep(1),
      ArrowUp: () => goRow(-1),
      ArrowDown: () => goRow(1),
      "Shift+ArrowUp": () => goRow(-1, true),
      "Shift+ArrowDown": () => goRow(1, true),
      "+": () => zoom(0.6),
      "Shift++": () => zoom(0.6),
      "=": () => zoom(0.6),
      "-": () => zoom(1 / 0.6),
      f: toggleFit,
      s: () => setUnit(unit === "seconds" ? "steps" : "seconds"),
      Enter: (event) => (event.target.tagName === "BUTTON" ? event.target.click()
        : cursor.row >= 0 && pin(rows[cursor.row].id)),
      Escape: () => {
        [cursor, pinned] = [{ row: -1, step: -1 }, null];
        why.replaceChildren();
        select([]);
        tip.hide();
        showWhole();
      },
    });

    // ---- pointing

    function locate(event) {
      const bounds_ = surface.node.getBoundingClientRect();
      const [x, y] = [event.clientX - bounds_.left, event.clientY - bounds_.top];
      const at = geometry();
      const row = y < at.box.bottom ? Math.floor(view.y + y / at.high) : -1;
      return { ...at, x, y, row: row < rows.length ? row : -1 };
    }

    const stepFacts = (index) => [
      ["step", steps.step[index]],
      ["began", seconds(steps.step_start[index])],
      ["took", seconds(steps.step_s[index])],
      ["tokens", `${steps.step_tokens[index]} of ${steps.budget[index]}`],
      ["KV in use", `${steps.kv_percent[index].toFixed(1)} %`],
    ];

    const requestFacts = (request) => [
      ["request", request.id],
      ["arrived", seconds(request.arrival)],
      ["first token", Number.isFinite(request.ttft) ? `after ${seconds(request.ttft)}` : "not yet"],
      ...Object.entries(request.tags).map(([name, value]) => [name, value]),
    ];

    function spanFacts({ spans }, x) {
      for (let index = spans.kind.length - 1; index >= 0; index -= 1) {
        const [start, end] = bounds(spans, index);
        if (x < start || x > end) continue;
        const [from, to] = [spans.first_step[index], spans.last_step[index]];
        return [
          [KIND_NAMES[KINDS[spans.kind[index]]], seconds(spans.end[index] - spans.start[index])],
          from >= 0 ? ["steps", from === to ? from : `${from} to ${to}`] : null,
          spans.tokens[index] ? ["tokens", spans.tokens[index]] : null,
        ];
      }
      return [];
    }

    function tellAt(x, y, facts) {
      const box = surface.node.getBoundingClientRect();
      tip.show({ clientX: box.left + x, clientY: box.top + y }, facts);
    }

    function hover(event) {
      const at = locate(event);
      cursor.row = at.row;
      const inside = at.x >= at.box.left && at.x <= at.box.right;
      cursor.step = inside ? stepAt(at.value(at.x)) : -1;
      surface.redraw();
      if (at.row >= 0) {
        const facts = inside ? spanFacts(rows[at.row], at.value(at.x)) : [];
        return tip.show(event, [...requestFacts(rows[at.row]), ...facts]);
      }
      if (cursor.step >= 0 && at.y > at.box.bottom) return tip.show(event, stepFacts(cursor.step));
      tip.hide();
    }

    let drag = null;
    surface.node.addEventListener("pointerdown", (event) => {
      const at = locate(event);
      drag = { x: at.x, y: at.y, x0: view.x0, y0: view.y, moved: false, brushes: event.shiftKey };
      surface.node.setPointerCapture(event.pointerId);
    });
    surface.node.addEventListener("pointermove", (event) => {
      if (!drag) return hover(event);
      const at = locate(event);
      if (Math.abs(at.x - drag.x) + Math.abs(at.y - drag.y) > 3) drag.moved = true;
      if (!drag.moved) return;
      tip.hide();
      if (drag.brushes) {
        brush = { x0: Math.min(drag.x, at.x), x1: Math.max(drag.x, at.x),
          y0: Math.min(drag.y, at.y), y1: Math.max(drag.y, at.y) };
        surface.redraw();
      } else {
        const span = view.x1 - view.x0;
        scrollTo(drag.y0 - (at.y - drag.y) / at.high);
        panTo(drag.x0 - ((at.x - drag.x) / (at.box.right - at.box.left)) * span);
      }
    });
    surface.node.addEventListener("pointerup", (event) => {
      const { moved } = drag ?? {};
      const at = locate(event);
      if (!moved && at.row >= 0) {
        tip.hide();
        pin(rows[at.row].id);
      }
      if (moved && brush) take(brush, at);
      [drag, brush] = [null, null];
      surface.redraw();
    });
    surface.node.addEventListener("pointerleave", () => {
      if (drag) return;
      cursor = { row: -1, step: -1 };
      tip.hide();
      surface.redraw();
    });
    surface.node.addEventListener("wheel", (event) => {
      event.preventDefault();
      const at = locate(event);
      if (event.shiftKey || at.x < at.box.left) {
        return scrollTo(view.y + (event.deltaY || event.deltaX) / at.high);
      }
      zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 200), at.value(at.x));
    }, { passive: false });

    /** Select the requests that are alive within the brush. */
    function take(area, { high, value, box }) {
      const [x0, x1] = [value(Math.max(area.x0, box.left)), value(Math.max(area.x1, box.left))];
      const first = Math.max(0, Math.floor(view.y + area.y0 / high));
      const last = Math.min(rows.length - 1, Math.floor(view.y + area.y1 / high));
      const ids = [];
      for (let row = first; row <= last; row += 1) {
        const { id, spans } = rows[row];
        const count = spans.kind.length;
        if (!count) continue;
        if (bounds(spans, 0)[0] <= x1 && bounds(spans, count - 1)[1] >= x0) ids.push(id);
      }
      select(ids);
    }

    function select(ids) {
      const wanted = new Set(ids);
      if (wanted.size || selected.size) link.send("select", { request_ids: [...wanted] });
      selected = wanted;
      showText();
      surface.redraw();
    }

    function pin(id) {
      pinned = id;
      link.send("why", { request_id: id });
      surface.redraw();
    }

    // ---- frames

    function arrange() {
      const all = [...requests.values()];
      const rank = sort === "ttft" ? (request) => request.ttft
        : sort === "arrival" ? (request) => request.arrival
        : (request) => request.tags[sort] ?? null;
      const compare = (a, b) => {
        const [x, y] = [rank(a), rank(b)];
        const [noX, noY] = [x, y].map((value) => value === null || Number.isNaN(value));
        if (noX || noY) return noX - noY || a.arrival - b.arrival;
        const [p, q] = [Number(x), Number(y)];
        const difference = Number.isNaN(p) || Number.isNaN(q)
          ? String(x).localeCompare(String(y)) : p - q;
        return difference || a.arrival - b.arrival;
      };
      rows = all.sort(compare);
      surface.redraw();
    }

    function keep(facts, arrays) {
      const names = ["kind", "start", "end", "first_step", "last_step", "tokens"];
      facts.request_ids.forEach((id, index) => {
        const [from, to] = [index ? arrays.ends[index - 1] : 0, arrays.ends[index]];
        const spans = Object.fromEntries(names.map((name) => [name, arrays[name].subarray(from, to)]));
        const tags = Object.fromEntries(Object.entries(facts.tags)
          .map(([name, values]) => [name, values[index]]).filter(([, value]) => value !== null));
        requests.set(id, { id, arrival: arrays.arrival[index], ttft: arrays.ttft[index], tags, spans });
      });
      for (const id of requests.keys()) {
        if (requests.size <= maximum) break;
        requests.delete(id);
      }
    }

    function join(a, b) {
      const both = new b.constructor(a.length + b.length);
      both.set(a);
      both.set(b, a.length);
      return both;
    }

    function showText() {
      const tags = new Set([...requests.values()].flatMap((request) => Object.keys(request.tags)));
      order.replaceChildren(...["arrival", "ttft", ...tags].map((name) =>
        make("option", { value: name, selected: name === sort },
          { arrival: "arrival", ttft: "time to first token" }[name] ?? `tag ${name}`)));
      units.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === unit)));
      whole.setAttribute("aria-pressed", String(view.isWhole));
      fit.setAttribute("aria-pressed", String(view.isFitted));
      const shown = rows.length < numRequests ? `the newest ${rows.length} of ${numRequests}` : rows.length;
      said.textContent = `${shown} requests, ${numSteps()} steps`
        + (selected.size ? `; ${selected.size} selected: widget.selection` : "");
      noted.textContent = note;
      const present = new Set(rows.flatMap(({ spans }) => Array.from(new Set(spans.kind))));
      const palette = colours(el);
      legend(key, KINDS.flatMap((name, index) =>
        present.has(index) ? [[palette[name], KIND_NAMES[name]]] : []));
    }

    const forget = page.onTheme(showText);
    const link = onFrame(model, (kind, facts, arrays) => {
      if (kind === "selection") selected = new Set(facts.request_ids);
      if (kind === "why" && facts.request_id === pinned) {
        why.innerHTML = facts.html; // made by record.why, which escapes what it quotes
      }
      if (kind === "all" || kind === "more") {
        if (kind === "all") {
          requests = new Map();
          steps = Object.fromEntries(LANE_ARRAYS.map((name) => [name, arrays[name]]));
          if (!rows.length) {
            [unit, sort] = [facts.x, facts.sort];
            view.isFitted = facts.request_ids.length * MIN_ROW > MAX_ROWS_HEIGHT;
          }
        } else {
          for (const name of LANE_ARRAYS) steps[name] = join(steps[name], arrays[name]);
        }
        ({ note, live: isLive, max: maximum, num_requests: numRequests } = facts);
        if (arrays.ends) keep(facts, arrays);
        arrange();
        if (view.isWhole) Object.assign(view, { x0: limits().low, x1: limits().high });
      }
      showText();
      surface.redraw();
    }, el);

    return () => {
      forget();
      link.close();
      surface.dispose();
      page.dispose();
    };
  },
};
