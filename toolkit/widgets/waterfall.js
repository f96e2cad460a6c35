// One request: a row per kind of span, seconds since its arrival, and the batch of each step below.

const ROW = 20;
const BATCH = 76;
const LEFT = 104;
const AXIS = 20;
const ORDER = ["tokenize", "wait_grammar", "wait_policy", "wait_seqs", "wait_blocks", "wait_budget",
  "wait_host", "wait_step", "prefill", "preempted", "decode", "emit"];
const NAMES_SHOWN = { tokenize: "tokenize", prefill: "prefill", decode: "decode", preempted: "preempted",
  emit: "send" };
const nameOf = (row) => NAMES_SHOWN[row] ?? `wait for ${row.replace("wait_", "")}`;
const PARTS = [["batch_own_tokens", "text", "this request"],
  ["batch_mates_prompt_tokens", "prefill", "others' prompts"],
  ["batch_mates_decode_tokens", "decode", "others' decoding"]];

function render({ model, el }) {
  const page = mount(el);
  const state = { meta: null, arrays: {}, rows: [], isEarly: false, hit: null };

  const go = (by) => frames.send("step", { by });
  const back = make("button", { type: "button", title: "Previous request (left arrow)",
    onclick: () => go(-1) }, "◀");
  const next = make("button", { type: "button", title: "Next request (right arrow)",
    onclick: () => go(1) }, "▶");
  const place = make("span", { class: "tk-number tk-muted" });
  const name = make("input", { type: "text", size: "34", "aria-label": "Request, answer or X-Request-Id",
    onchange: () => frames.send("show", { request_id: name.value.trim() }) });
  const early = make("button", { type: "button", "aria-pressed": "false",
    title: "Only the time up to the first token (F)", onclick: () => toggleEarly() }, "Until first token");
  el.append(make("div", { class: "tk-bar" }, back, next, name, place, early));
  const sentence = make("div", { class: "tk-sentence", role: "status" });
  el.append(sentence);
  const lanes = make("div", { style: "position:relative" });
  el.append(lanes);
  const tip = tooltip(lanes);
  const below = make("div");
  el.append(below);
  const who = make("div", { class: "tk-muted tk-responsible" });
  el.append(who);

  const surface = canvas(lanes, draw, { height: 160, focusable: true,
    label: "The request's time by what it did. Left and right arrows change the request." });

  const endOf = () => {
    const ends = state.arrays.span_end_s ?? [];
    const all = ends.length ? ends[ends.length - 1] : 1;
    const first = state.meta?.first_token_s;
    return Math.max(1e-6, state.isEarly && first > 0 ? first * 1.02 : all);
  };
  const toX = (at, width) => LEFT + (at / endOf()) * (width - LEFT - 8);

  function draw(ctx, width, height, palette) {
    if (!state.meta) return;
    const { span_start_s: starts, span_end_s: ends } = state.arrays;
    const bottom = state.rows.length * ROW;
    const box = { left: LEFT, top: 0, right: width - 8, bottom: height - AXIS };
    axis(ctx, "x", { box, low: 0, high: endOf(), scale: (at) => toX(at, width), palette,
      format: (at) => seconds(at).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ") });
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.fillStyle = palette.text;
    state.rows.forEach((row, index) => ctx.fillText(nameOf(row), LEFT - 6, index * ROW + ROW / 2));
    ctx.save();
    ctx.beginPath();
    ctx.rect(LEFT, 0, width - LEFT, height);
    ctx.clip();
    state.meta.rows.forEach((row, index) => {
      const [x, end] = [toX(starts[index], width), toX(ends[index], width)];
      ctx.fillStyle = palette[row] ?? palette.muted;
      ctx.fillRect(x, state.rows.indexOf(row) * ROW + 3, Math.max(1, end - x), ROW - 6);
      if (index === state.hit) {
        ctx.strokeStyle = palette.text;
        ctx.strokeRect(x - 0.5, state.rows.indexOf(row) * ROW + 2.5, Math.max(1, end - x) + 1, ROW - 5);
      }
    });
    drawBatch(ctx, width, bottom + 8, palette);
    ctx.restore();
    ctx.fillStyle = palette.muted;
    ctx.fillText("tokens per step", LEFT - 6, bottom + 8 + BATCH / 2);
  }

  function drawBatch(ctx, width, top, palette) {
    const { batch_start_s: starts, batch_duration_s: lengths, batch_token_budget: budgets } = state.arrays;
    let most = 1;
    for (let step = 0; step < starts.length; step += 1) {
      most = Math.max(most, PARTS.reduce((sum, [part]) => sum + state.arrays[part][step], 0));
    }
    const bottom = top + BATCH;
    const scale = (tokens) => (tokens / most) * (BATCH - 4);
    for (let step = 0; step < starts.length; step += 1) {
      const x = toX(starts[step], width);
      const end = toX(starts[step] + lengths[step], width);
      // A gap between steps of one pixel and more is seen; thinner ones would only blur.
      const size = Math.max(0.7, end - x - (end - x > 4 ? 0.5 : 0));
      let y = bottom;
      for (const [part, colour] of PARTS) {
        const tall = scale(state.arrays[part][step]);
        ctx.fillStyle = palette[colour];
        ctx.fillRect(x, y - tall, size, tall);
        y -= tall;
      }
      // Where the budget is used up, more would not have fitted.
      if (budgets[step] > 0 && most >= 0.9 * budgets[step]) {
        ctx.fillStyle = palette.text;
        ctx.fillRect(x, bottom - scale(budgets[step]), size, 1);
      }
    }
    ctx.fillStyle = palette.line;
    ctx.fillRect(LEFT, bottom, width, 1);
  }

  surface.node.addEventListener("pointermove", (event) => {
    const box = surface.node.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const at = ((x - LEFT) / (surface.width - LEFT - 8)) * endOf();
    const { span_start_s: starts, span_end_s: ends, span_tokens: tokens } = state.arrays;
    state.hit = null;
    if (state.meta && y < state.rows.length * ROW) {
      const row = state.rows[Math.floor(y / ROW)];
      const near = (4 / (surface.width - LEFT)) * endOf(); // thin bars are hard to meet
      state.meta.rows.forEach((each, index) => {
        if (each === row && at >= starts[index] - near && at <= ends[index] + near) state.hit = index;
      });
    }
    if (state.hit != null) {
      const index = state.hit;
      tip.show(event, [[nameOf(state.meta.rows[index]), seconds(ends[index] - starts[index])],
        ["from", seconds(starts[index])], ["to", seconds(ends[index])],
        tokens[index] > 0 ? ["tokens", tokens[index]] : null]);
    } else if (!showStep(event, at, y)) tip.hide();
    surface.redraw();
  });
  function showStep(event, at, y) {
    const { batch_start_s: starts, batch_duration_s: lengths } = state.arrays;
    if (!starts || y < state.rows.length * ROW) return false;
    const step = starts.findLastIndex((start) => start <= at);
    if (step < 0 || at > starts[step] + lengths[step]) return false;
    tip.show(event, [["step", state.arrays.batch_step[step]], ["took", seconds(lengths[step])],
      ...PARTS.map(([part, , text]) => [text, `${state.arrays[part][step]} tokens`]),
      ["budget", `${state.arrays.batch_token_budget[step]} tokens`]]);
    return true;
  }
  surface.node.addEventListener("pointerleave", () => ((state.hit = null), tip.hide(), surface.redraw()));
  function toggleEarly() {
    state.isEarly = !state.isEarly;
    early.setAttribute("aria-pressed", String(state.isEarly));
    surface.redraw();
  }
  keys(el, { ArrowLeft: () => go(-1), ArrowRight: () => go(1), f: toggleEarly });

  const frames = onFrame(model, (kind, meta, arrays) => {
    if (kind !== "waterfall") return;
    Object.assign(state, { meta, arrays, hit: null });
    const present = new Set(meta.rows);
    state.rows = [...ORDER.filter((row) => present.has(row)),
      ...[...present].filter((row) => !ORDER.includes(row))];
    if (document.activeElement !== name || name.value === "") name.value = meta.request_id;
    place.textContent = `${meta.index + 1} of ${meta.num}`;
    back.disabled = meta.index === 0;
    next.disabled = meta.index + 1 === meta.num;
    early.disabled = !(meta.first_token_s > 0);
    sentence.textContent = meta.sentence;
    legend(below, PARTS.map(([, colour, text]) => [`var(--tk-${colour})`, text]));
    who.textContent = meta.responsible.length
      ? `Responsible: ${meta.responsible.map(([id, role, took]) => `${id} (${role}, ${seconds(took)})`).join("; ")}`
      : "";
    surface.setHeight(state.rows.length * ROW + 8 + BATCH + AXIS);
  }, el);
  return () => (frames.close(), surface.dispose(), page.dispose());
}

export default { render };
