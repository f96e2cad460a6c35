// LogitLens: what each layer would have said, position by position.

const FAINTEST = -10; // nats: what is less likely has no colour

function render({ model, el }) {
  const page = mount(el);
  const root = element("div", "tk-lens", el);
  const bar = element("div", "tk-bar", root);
  const legend = element("div", "tk-legend", bar);
  const scroller = element("div", "tk-scroll", root);
  scroller.tabIndex = 0;
  scroller.setAttribute("aria-label", "layers by positions; arrow keys move");
  const detail = element("div", "tk-status", root);
  let frame = null;
  let cells = [];
  let at = null;

  element("span", "", legend, "log-probability of the token that came next:");
  ramp(legend, `${FAINTEST} nats or less`, "0");

  function draw() {
    const { meta, arrays } = frame;
    const [numLayers, numPositions] = [meta.layers.length, meta.tokens.length];
    scroller.replaceChildren();
    cells = [];
    if (!numPositions) {
      element("span", "tk-note", scroller, "no position was captured");
      return;
    }
    const table = element("table", "tk-table", scroller);
    const head = element("tr", "", element("thead", "", table));
    element("th", "", head, "layer");
    meta.tokens.forEach((text, i) => {
      const cell = element("th", "tk-name", head, visible(text));
      cell.title = `position ${arrays.positions[i]}; then came ${visible(meta.next_tokens[i])}`;
    });
    const body = element("tbody", "", table);
    // The last layer stands next to the tokens that came of it.
    for (let layer = numLayers - 1; layer >= 0; layer--) {
      const row = element("tr", "", body);
      element("th", "", row, meta.layers[layer]);
      cells[layer] = [];
      for (let place = 0; place < numPositions; place++) {
        const index = layer * numPositions + place;
        const top = meta.texts[arrays.top[index * meta.num_top]];
        const cell = element("td", "tk-token", row, visible(top));
        const share = Math.max(0, 1 - arrays.logprob[index] / FAINTEST);
        cell.style.setProperty("--strength", Number.isFinite(share) ? share.toFixed(3) : 0);
        cell.dataset.layer = layer;
        cell.dataset.place = place;
        cells[layer].push(cell);
      }
    }
    detail.textContent = "hover over a cell, or use the arrow keys: the five likeliest tokens there";
  }

  function point(layer, place) {
    const cell = cells[layer]?.[place];
    if (!cell) return null;
    if (at) at.classList.remove("tk-current");
    at = cell;
    at.classList.add("tk-current");
    const { meta, arrays } = frame;
    const index = layer * meta.tokens.length + place;
    const top = Array.from({ length: meta.num_top }, (_, i) => {
      const where = index * meta.num_top + i;
      return `${visible(meta.texts[arrays.top[where]])} ${percent(arrays.top_logprob[where])}`;
    });
    detail.textContent =
      `${meta.layers[layer]}, position ${arrays.positions[place]}: ${top.join(" · ")}` +
      ` — then came ${visible(meta.next_tokens[place])} ${percent(arrays.logprob[index])}`;
    return cell;
  }

  function move(up, right) {
    const layer = at ? Number(at.dataset.layer) + up : cells.length - 1;
    const place = at ? Number(at.dataset.place) + right : 0;
    point(layer, place)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  scroller.onmouseover = (event) => {
    const data = event.target.closest?.("td")?.dataset;
    if (data?.layer !== undefined) point(Number(data.layer), Number(data.place));
  };
  keys(scroller, {
    ArrowUp: () => move(1, 0),
    ArrowDown: () => move(-1, 0),
    ArrowRight: () => move(0, 1),
    ArrowLeft: () => move(0, -1),
  });
  const frames = onFrame(
    model,
    (kind, meta, arrays) => {
      frame = { meta, arrays };
      at = null;
      draw();
    },
    el,
  );
  return () => (frames.close(), page.dispose());
}

function percent(logprob) {
  if (Number.isNaN(logprob)) return "";
  const share = 100 * Math.exp(logprob);
  return share >= 0.1 ? `${share.toFixed(share >= 10 ? 0 : 1)} %` : "< 0.1 %";
}

export default { render };
