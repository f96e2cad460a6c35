// SideBySide: several answers beside each other, token under token, the first difference marked.

function render({ model, el }) {
  const page = mount(el);
  const root = element("div", "tk-beside", el);
  const bar = element("div", "tk-bar", root);
  const jump = element("button", "tk-button", bar, "first difference");
  const layout = element("button", "tk-button", bar, "one token a row");
  const status = element("span", "tk-status", bar);
  const body = element("div", "tk-columns", root);
  body.tabIndex = 0;
  let frame = null;
  let panes = [];
  let inRows = false;
  let current = -1;

  function tokenSpan(parent, column, index) {
    const { meta, arrays, width } = frame;
    const span = element("span", `tk-token tk-${meta.kinds[column][index]}`, parent);
    span.textContent = meta.texts[column][index].replaceAll("\n", inRows ? "⏎" : "⏎\n") || "∅";
    span.dataset.index = index;
    span.classList.toggle("tk-differs", arrays.differs[column * width + index] === 1);
    span.classList.toggle("tk-first", index === meta.first_difference);
    span.title = `token ${arrays.token_id[column * width + index]} · number ${index}`;
    return span;
  }

  function draw() {
    const { meta } = frame;
    body.replaceChildren();
    body.classList.toggle("tk-in-rows", inRows);
    layout.setAttribute("aria-pressed", inRows);
    panes = [];
    if (inRows) drawRows(meta);
    else
      meta.names.forEach((name, column) => {
        const pane = element("div", "tk-column", body);
        element("div", "tk-name", pane, name);
        const text = element("div", "tk-flow", pane);
        meta.texts[column].forEach((label, index) => tokenSpan(text, column, index));
        text.onscroll = () => follow(text);
        panes.push(text);
      });
    jump.disabled = meta.first_difference < 0;
    status.textContent = meta.summary;
  }

  function drawRows(meta) {
    const table = element("table", "tk-table", body);
    const head = element("tr", "", element("thead", "", table));
    ["", ...meta.names].forEach((name) => element("th", "", head, name));
    const rows = element("tbody", "", table);
    for (let index = 0; index < frame.width; index++) {
      const row = element("tr", "", rows);
      element("th", "", row, String(index));
      meta.names.forEach((name, column) => {
        const cell = element("td", "", row);
        if (index < meta.texts[column].length) tokenSpan(cell, column, index);
      });
    }
  }

  // Columns scroll together by share, since the same token may stand on another line.
  let following = null;
  function follow(leader) {
    if (following && following !== leader) return;
    following = leader;
    const room = leader.scrollHeight - leader.clientHeight;
    for (const pane of panes)
      if (pane !== leader)
        pane.scrollTop = room ? (leader.scrollTop / room) * (pane.scrollHeight - pane.clientHeight) : 0;
    requestAnimationFrame(() => (following = null));
  }

  function point(index) {
    if (!frame || index < 0 || index >= frame.width) return;
    body.querySelectorAll(".tk-current").forEach((span) => span.classList.remove("tk-current"));
    current = index;
    const spans = body.querySelectorAll(`[data-index="${index}"]`);
    spans.forEach((span) => span.classList.add("tk-current"));
    const { meta, arrays, width } = frame;
    const said = meta.names.map((name, column) =>
      index < meta.texts[column].length
        ? `${name}: ${JSON.stringify(meta.texts[column][index])} (${arrays.token_id[column * width + index]})`
        : `${name}: ended`,
    );
    status.textContent = `token ${index} · ${said.join(" · ")}`;
    return spans;
  }

  function move(index) {
    following = body; // each column goes to its own token
    point(index)?.forEach((span) => span.scrollIntoView({ block: "nearest" }));
    requestAnimationFrame(() => requestAnimationFrame(() => (following = null)));
  }

  body.onmouseover = (event) => {
    const index = event.target.closest?.("[data-index]")?.dataset.index;
    if (index !== undefined) point(Number(index));
  };
  jump.onclick = () => move(frame.meta.first_difference);
  layout.onclick = () => {
    inRows = !inRows;
    draw();
  };
  keys(body, {
    ArrowRight: () => move(Math.min(frame.width - 1, current + 1)),
    ArrowLeft: () => move(Math.max(0, current - 1)),
    Home: () => move(0),
    End: () => move(frame.width - 1),
    d: () => frame.meta.first_difference >= 0 && move(frame.meta.first_difference),
  });
  const frames = onFrame(
    model,
    (kind, meta, arrays) => {
      frame = { meta, arrays, width: meta.width };
      draw();
    },
    el,
  );
  return () => (frames.close(), page.dispose());
}

export default { render };
