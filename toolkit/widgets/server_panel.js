// Where the server is, how it is, what it logs, and code to copy.

const STOP_AGAIN_MS = 4000; // a second click within this time is meant

/** Copy text; a page without the permission is asked in the old way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { style: "position:fixed;opacity:0" });
    area.value = text;
    document.body.append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    return worked;
  }
}

function copyButton(text, title) {
  const button = make("button", { type: "button", title, class: "tk-copy" }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(text())) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

function render({ model, el }) {
  const page = mount(el);
  const state = { url: "", snippets: {}, tab: "curl" };
  const dot = make("i", { class: "tk-swatch", style: "border-radius:50%" });
  const title = make("b");
  const link = make("a", { target: "_blank", rel: "noopener", title: "What it answers",
    style: "color:var(--tk-accent)" }, "API docs");
  const stop = make("button", { type: "button", class: "tk-stop" }, "Stop");
  el.append(make("div", { class: "tk-bar" }, make("span", {}, dot, title),
    copyButton(() => `${state.url}/v1`, "Copy the base URL"), link,
    make("span", { class: "tk-grow" }), stop));

  const facts = make("table", { class: "tk-facts", style: "border-collapse:collapse;margin:2px 0 6px;font:inherit;color:inherit" });
  el.append(facts);
  const tabs = make("div", { class: "tk-bar", role: "tablist", "aria-label": "Code to copy" });
  const code = make("pre", { class: "tk-code", role: "tabpanel", style: "margin:0 0 6px;padding:6px 8px;"
    + "overflow:auto;white-space:pre;color:inherit;background:rgba(128,128,128,.12);border-radius:4px" });
  const copyCode = copyButton(() => state.snippets[state.tab] ?? "", "Copy this code");
  el.append(tabs, code);
  const log = make("pre", { class: "tk-log", tabindex: "0", "aria-label": "The last lines of the log",
    style: "margin:0;max-height:11em;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;"
      + "color:var(--tk-muted);background:transparent;font-size:11px" });
  el.append(log);

  let armed = 0;
  stop.addEventListener("click", () => {
    if (armed) {
      disarm();
      frames.send("stop");
      return;
    }
    stop.textContent = "Click again to stop";
    armed = setTimeout(disarm, STOP_AGAIN_MS);
  });
  function disarm() {
    clearTimeout(armed);
    armed = 0;
    stop.textContent = "Stop";
  }

  function showTab(name) {
    state.tab = name;
    code.textContent = state.snippets[name] ?? "";
    for (const tab of tabs.querySelectorAll("[role=tab]")) {
      const isChosen = tab.textContent === name;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.setAttribute("aria-pressed", String(isChosen));
    }
  }

  const frames = onFrame(model, (kind, meta) => {
    if (kind !== "panel") return;
    state.url = meta.url;
    title.textContent = meta.title;
    dot.style.background = meta.is_running ? "var(--tk-wait_policy)" : "var(--tk-wait_host)";
    link.style.display = meta.docs && meta.is_running ? "" : "none";
    link.href = meta.docs ?? "";
    stop.hidden = !meta.is_running;
    stop.disabled = meta.is_stopping;
    if (meta.is_stopping) stop.textContent = "Stopping";
    else if (!armed) stop.textContent = "Stop";
    facts.replaceChildren(...meta.facts.map(([name, value]) => make("tr", { style: "background:transparent" },
      make("td", { class: "tk-muted", style: "padding:1px 14px 1px 0;text-align:left" }, name),
      make("td", { class: "tk-number", style: "padding:1px 0;text-align:left", "data-fact": name }, value))));
    const names = Object.keys(meta.snippets);
    if (names.join() !== Object.keys(state.snippets).join()) {
      tabs.replaceChildren(...names.map((name) => make("button",
        { type: "button", role: "tab", onclick: () => showTab(name) }, name)), copyCode);
    }
    state.snippets = meta.snippets;
    tabs.style.display = code.style.display = names.length ? "" : "none";
    if (names.length) showTab(names.includes(state.tab) ? state.tab : names[0]);
    const text = meta.logs.join("\n");
    if (text !== log.textContent) {
      const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.textContent = text;
      if (isAtEnd) log.scrollTop = log.scrollHeight; // whoever reads further up is left alone
    }
  }, el);
  return () => (disarm(), frames.close(), page.dispose());
}

export default { render };
