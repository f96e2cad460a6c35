// SamplerLab: one distribution, a slider for every parameter, bars before and after each step.

function render({ model, el }) {
  const page = mount(el);
  const root = element("div", "tk-lab", el);
  const panel = element("div", "tk-panel", root);
  const main = element("div", "tk-main", root);
  const strip = element("div", "tk-stages", main);
  strip.setAttribute("role", "tablist");
  strip.setAttribute("aria-label", "steps of the chain");
  const bar = element("div", "tk-bar", main);
  const headline = element("div", "tk-status", main);
  const list = element("div", "tk-rows", main);
  list.tabIndex = 0;
  list.setAttribute("aria-label", "tokens, likeliest first; up and down pick one to bias");
  let frame = null;
  let stage = null; // the step that is shown; null is the whole chain
  let showsAll = false; // also the steps that changed nothing
  let picked = -1;
  let waiting = null; // settings that changed while Python was at work
  let isBusy = false;

  for (const [label, kind, title] of [
    ["redraw", "redraw", "the next position: other random numbers"],
    ["new seed", "reseed", "other random numbers for all positions"],
    ["draw 500", "draw", "one token at each of 500 positions, against the probabilities"],
    ["reset", "reset", "all parameters off"],
  ]) {
    const button = element("button", "tk-button", bar, label);
    button.title = title;
    button.onclick = () => frames.send(kind);
  }

  // ---- parameters

  const inputs = new Map();
  function buildPanel(controls) {
    for (const control of controls) {
      const label = element("label", "tk-control", panel);
      element("span", "tk-label", label, control.label);
      const input = element("input", "", label);
      input.type = control.is_number ? "number" : "range";
      for (const name of ["min", "max", "step"]) if (name in control) input[name] = control[name];
      const value = element("output", "", label);
      input.oninput = () => {
        if (input.value === "") return;
        value.textContent = control.is_number ? "" : shortNumber(Number(input.value));
        change(control.name, Number(input.value));
      };
      input.title = control.title;
      inputs.set(control.name, { input, value, control, label });
    }
  }

  // One question at a time: what changes meanwhile goes with the next. The bias is that of the
  // token that is picked.
  function change(name, value) {
    waiting = { ...waiting, [name]: name === "bias" ? { ...waiting?.bias, [picked]: value } : value };
    if (!isBusy) flush();
  }

  function flush() {
    if (!waiting) return;
    isBusy = true;
    const values = waiting;
    waiting = null;
    frames.send("set", { values });
  }

  function fillPanel(values) {
    for (const [name, { input, value, control, label }] of inputs) {
      if (waiting && name in waiting) continue;
      if (name === "bias") input.disabled = picked < 0;
      const now = name === "bias" ? biasOf(picked) : values[name];
      if (document.activeElement !== input || !control.is_number) input.value = now;
      value.textContent = control.is_number ? "" : shortNumber(now);
      label.classList.toggle("tk-active", now !== control.neutral);
      if (name === "position") input.min = frame.meta.first_position;
    }
  }

  const biasOf = (id) => frame.meta.bias[id] ?? 0;

  // ---- steps

  function drawStages() {
    const { meta, arrays } = frame;
    const count = meta.tokens.length;
    strip.replaceChildren();
    const choices = [[null, "whole chain", true], ...meta.stages.map((s, i) => [i, s.name, s.changed])];
    let numFolded = 0;
    for (const [index, name, changed] of choices) {
      if (!changed && index !== 0 && index !== stage && !showsAll) {
        numFolded += 1;
        continue;
      }
      const button = element("button", "tk-stage", strip);
      button.setAttribute("role", "tab");
      button.setAttribute("aria-selected", stage === index);
      button.classList.toggle("tk-idle", !changed && index !== 0);
      const last = index ?? meta.stages.length - 1;
      if (changed || index === 0) button.append(miniature(arrays.probability.subarray(last * count, (last + 1) * count)));
      button.title = name;
      element("span", "", button, name);
      element("span", "tk-note", button, `${meta.stages[last].kept.toLocaleString()} kept`);
      button.onclick = () => {
        stage = index;
        draw();
      };
    }
    if (!numFolded && !showsAll) return;
    const fold = element("button", "tk-stage tk-fold", strip,
      showsAll ? "only what changed something" : `${numFolded} changed nothing`);
    fold.title = "steps of the chain that left every probability as it was";
    fold.setAttribute("aria-expanded", showsAll);
    fold.onclick = () => {
      showsAll = !showsAll;
      draw();
    };
  }

  function miniature(values) {
    const [width, height] = [84, 26];
    const largest = Math.max(...values, 1e-9);
    const step = width / values.length;
    let path = "";
    values.forEach((value, i) => {
      const top = height - (value / largest) * height;
      path += `M${(i * step).toFixed(1)} ${height}V${top.toFixed(1)}h${Math.max(0.6, step - 0.4).toFixed(1)}V${height}z`;
    });
    const picture = make("span", { "aria-hidden": "true" });
    picture.innerHTML = `<svg viewBox="0 0 ${width} ${height}"><path d="${path}"/></svg>`;
    return picture;
  }

  // ---- tokens

  function drawRows() {
    const { meta, arrays } = frame;
    const count = meta.tokens.length;
    const last = stage ?? meta.stages.length - 1;
    const first = stage === null ? 0 : Math.max(0, stage - 1);
    const before = arrays.probability.subarray(first * count, (first + 1) * count);
    const after = arrays.probability.subarray(last * count, (last + 1) * count);
    const isKept = arrays.kept.subarray(last * count, (last + 1) * count);
    const wasKept = arrays.kept.subarray(first * count, (first + 1) * count);
    const drawn = meta.num_draws ? arrays.drawn : null;
    const scale = Math.max(...before, ...after, ...(drawn ? [...drawn].map((n) => n / meta.num_draws) : []), 1e-9);
    list.replaceChildren();
    let lastKept = isKept.lastIndexOf(1);
    meta.tokens.forEach(([id, text], i) => {
      const row = element("div", "tk-row", list);
      row.dataset.id = id;
      row.classList.toggle("tk-cut", !isKept[i]);
      row.classList.toggle("tk-current", id === picked);
      row.classList.toggle("tk-chosen", id === meta.token_id);
      // Below this line the shown steps have cut everything.
      row.classList.toggle("tk-line", i === lastKept && isKept.includes(0) && lastKept < count - 1);
      const label = element("span", "tk-token-name", row, visible(text));
      label.title = `token ${id}`;
      const track = element("span", "tk-track", row);
      element("span", "tk-before", track).style.width = `${(100 * before[i]) / scale}%`;
      element("span", "tk-after", track).style.width = `${(100 * after[i]) / scale}%`;
      if (drawn && drawn[i]) {
        const dot = element("span", "tk-drawn", track);
        dot.style.left = `${(100 * drawn[i]) / meta.num_draws / scale}%`;
        dot.title = `drawn ${drawn[i]} of ${meta.num_draws} times`;
      }
      const cut = wasKept[i] && !isKept[i] ? "cut" : isKept[i] ? share(after[i]) : "–";
      element("span", "tk-number", row, cut);
      const mark = [id === meta.token_id ? "◆ drawn" : "", id === meta.sampled_id ? "sampled" : ""];
      if (biasOf(id)) mark.push(`bias ${shortNumber(biasOf(id))}`);
      element("span", "tk-mark", row, mark.filter(Boolean).join(" · "));
    });
    const hidden = 1 - after.reduce((sum, value) => sum + value, 0);
    if (meta.num_hidden && hidden > 0.0005)
      element("div", "tk-note", list, `${meta.num_hidden.toLocaleString()} more tokens, together ${share(hidden)}`);
    const name = stage === null ? "the whole chain" : meta.stages[stage].name;
    headline.textContent =
      `${name}: pale before, full after · ${meta.stages[last].kept.toLocaleString()} of ` +
      `${meta.vocab_size.toLocaleString()} tokens kept · ${meta.draw}`;
    if (meta.note) headline.textContent += ` · ${meta.note}`;
    headline.classList.toggle("tk-error", Boolean(meta.error));
    if (meta.error) headline.textContent = meta.error;
  }

  function draw() {
    drawStages();
    drawRows();
    fillPanel(frame.meta.values);
  }

  function pick(id) {
    picked = id;
    const name = frame.meta.tokens.find(([other]) => other === id)?.[1] ?? "";
    inputs.get("bias").label.querySelector(".tk-label").textContent = `logit bias of ${visible(name)}`;
    draw();
    list.querySelector(".tk-current")?.scrollIntoView({ block: "nearest" });
  }

  list.onclick = (event) => {
    const id = event.target.closest?.("[data-id]")?.dataset.id;
    if (id !== undefined) pick(Number(id));
  };
  const step = (by) => {
    const ids = frame.meta.tokens.map(([id]) => id);
    pick(ids[Math.max(0, Math.min(ids.length - 1, ids.indexOf(picked) + by))]);
  };
  keys(list, { ArrowDown: () => step(1), ArrowUp: () => step(-1), r: () => frames.send("redraw") });

  const frames = onFrame(
    model,
    (kind, meta, arrays) => {
      frame = { meta, arrays };
      isBusy = false;
      if (!inputs.size) buildPanel(meta.controls);
      if (stage !== null && stage >= meta.stages.length) stage = null;
      draw();
      flush();
    },
    el,
  );
  return () => (frames.close(), page.dispose());
}

function share(value) {
  return value >= 0.001 ? `${(100 * value).toFixed(value >= 0.1 ? 1 : 2)} %` : value.toExponential(1);
}

function shortNumber(value) {
  return String(Math.round(1000 * value) / 1000);
}

export default { render };
