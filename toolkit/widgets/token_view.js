// TokenView: a request's tokens as text, each coloured by what is known of it.

const MODES = [
  ["probability", "probability", "under the model, before any step of the sampler"],
  ["rank", "rank", "1 is the model's favourite"],
  ["entropy", "entropy", "how undecided the model was, in nats"],
  ["source", "source", "how the token was chosen"],
  ["plain", "plain", "no colour"],
];
const SOURCES = ["sampled", "greedy", "grammar", "draft", "forced"];
// Where a colour is strongest: a probability of 1e-4, rank 100, 4 nats.
const STRONGEST = { probability: Math.log(1e4), rank: Math.log(100), entropy: 4 };

function strength(mode, token) {
  const value = {
    probability: -token.logprob,
    rank: token.rank > 0 ? Math.log(token.rank) : NaN,
    entropy: token.entropy,
  }[mode];
  return Number.isFinite(value) || value === Infinity
    ? Math.max(0, Math.min(1, value / STRONGEST[mode]))
    : NaN;
}

function numbers(token) {
  const parts = [`token ${token.id}`, `position ${token.position}`];
  if (token.step >= 0) parts.push(`step ${token.step}`);
  if (Number.isFinite(token.logprob))
    parts.push(`probability ${probabilityText(token.logprob)}`, `logprob ${token.logprob.toFixed(3)}`);
  if (token.rank > 0) parts.push(`rank ${token.rank}`);
  if (Number.isFinite(token.entropy)) parts.push(`entropy ${token.entropy.toFixed(2)} nats`);
  if (token.source >= 0) parts.push(SOURCES[token.source]);
  if (token.isCached) parts.push("from the prefix cache");
  return parts.join(" · ");
}

function probabilityText(logprob) {
  const share = Math.exp(logprob);
  return share >= 0.001 ? `${(100 * share).toFixed(share >= 0.1 ? 0 : 1)} %` : share.toExponential(1);
}

function render({ model, el }) {
  const page = mount(el);
  const root = element("div", "tk-tokens", el);
  const bar = element("div", "tk-bar", root);
  const chooser = element("select", "tk-select", bar);
  chooser.title = "which request";
  const group = element("div", "tk-toggle", bar);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "colour by");
  const legend = element("div", "tk-legend", root);
  const body = element("div", "tk-body", root);
  const text = element("div", "tk-flow", body);
  text.tabIndex = 0;
  text.setAttribute("role", "listbox");
  text.setAttribute("aria-label", "tokens; arrow keys move, Enter explains");
  const side = element("div", "tk-side", body);
  side.hidden = true;
  const status = element("div", "tk-status", root);
  let tokens = [];
  let mode = null;
  let current = -1;
  let meta = {};

  const buttons = MODES.map(([name, label, title]) => {
    const button = element("button", "tk-button", group, label);
    button.title = title;
    button.onclick = () => {
      paint(name);
      frames.send("mode", { mode: name }); // the page may be loaded again
    };
    return button;
  });

  function paint(chosen) {
    mode = chosen;
    buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", MODES[i][0] === mode);
      button.disabled = !meta.modes.includes(MODES[i][0]);
    });
    for (const token of tokens) {
      const share = strength(mode, token);
      token.span.style.setProperty("--strength", Number.isFinite(share) ? share.toFixed(3) : 0);
      token.span.dataset.source = mode === "source" && token.source >= 0 ? SOURCES[token.source] : "";
    }
    drawLegend();
  }

  function drawLegend() {
    legend.replaceChildren();
    if (mode === "source")
      for (const name of SOURCES.filter((name, i) => tokens.some((token) => token.source === i))) {
        const chip = element("span", "tk-token", legend, ` ${name} `);
        chip.dataset.source = name;
      }
    else if (mode !== "plain") {
      const ends = {
        probability: ["likely", "0.01 %"],
        rank: ["rank 1", "100 or later"],
        entropy: ["0 nats", "4 nats or more"],
      }[mode];
      ramp(legend, ...ends);
    }
    if (tokens.some((token) => token.isCached))
      element("span", "tk-token tk-cached", legend, " prompt from the cache ");
    if (meta.note) element("span", "tk-note", legend, meta.note);
  }

  function show(given, arrays) {
    meta = given;
    tokens = meta.texts.map((label, i) => ({
      label,
      kind: meta.kinds[i],
      id: arrays.token_id[i],
      index: i,
      position: arrays.position[i],
      logprob: arrays.logprob[i],
      rank: arrays.rank[i],
      entropy: arrays.entropy[i],
      source: arrays.source[i],
      step: arrays.step[i],
      isCached: arrays.is_cached[i] === 1,
      isPrompt: i < meta.num_prompt,
    }));
    text.replaceChildren();
    for (const token of tokens) {
      const span = element("span", `tk-token tk-${token.kind}`, text);
      span.classList.toggle("tk-prompt", token.isPrompt);
      span.classList.toggle("tk-cached", token.isCached);
      span.setAttribute("role", "option");
      span.dataset.index = token.index;
      // A line end is shown, and then ends the line.
      span.textContent = token.label.replaceAll("\t", "⇥\t").replaceAll("\n", "⏎\n") || "∅";
      token.span = span;
    }
    chooser.replaceChildren();
    for (const name of meta.requests) {
      const option = element("option", "", chooser, name);
      option.selected = name === meta.request_id;
    }
    chooser.hidden = meta.requests.length < 2;
    side.hidden = true;
    current = -1;
    status.textContent = meta.title;
    paint(meta.mode);
  }

  function point(index) {
    const next = tokens[index];
    if (!next) return;
    tokens[current]?.span.classList.remove("tk-current");
    tokens[current]?.span.removeAttribute("aria-selected");
    current = index;
    next.span.classList.add("tk-current");
    next.span.setAttribute("aria-selected", "true");
    status.textContent = numbers(next);
  }

  function explain() {
    const token = tokens[current];
    if (!token || !meta.explains) return;
    side.hidden = false;
    side.textContent = "…";
    frames.send("explain", { row: meta.first_row + token.index });
  }

  const indexAt = (event) => event.target.closest?.("[data-index]")?.dataset.index;
  text.onmouseover = (event) => {
    if (indexAt(event) !== undefined) point(Number(indexAt(event)));
  };
  text.onclick = (event) => {
    if (indexAt(event) === undefined) return;
    point(Number(indexAt(event)));
    explain();
  };
  keys(text, {
    ArrowRight: () => move(current + 1),
    ArrowLeft: () => move(current - 1),
    Home: () => move(0),
    End: () => move(tokens.length - 1),
    Enter: explain,
    Escape: () => (side.hidden = true),
  });
  function move(index) {
    point(Math.max(0, Math.min(tokens.length - 1, index)));
    tokens[current]?.span.scrollIntoView({ block: "nearest" });
  }
  chooser.onchange = () => frames.send("request", { request_id: chooser.value });

  const frames = onFrame(
    model,
    (kind, given, arrays) => {
      if (kind === "tokens") show(given, arrays);
      if (kind === "explanation") {
        side.hidden = false;
        side.innerHTML = given.html;
        if (current < 0) point(given.row - meta.first_row);
      }
    },
    el,
  );
  return () => (frames.close(), page.dispose());
}

export default { render };
