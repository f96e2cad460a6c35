// The controls of EngineDebugger: step, run until, back, policy, and the plan of the last step.

function render({ model, el }) {
  const page = mount(el);
  const root = element("div", "tk-debugger", el);
  root.tabIndex = 0;
  const bar = element("div", "tk-bar", root);
  const button = (label, title, kind, fields = () => ({})) => {
    const made = element("button", "tk-button", bar, label);
    made.title = made.dataset.title = title;
    made.onclick = () => frames.send(kind, fields());
    return made;
  };
  const back = button("◀ back", "to before the last step (b)", "back");
  const step = button("step ▶", "run one step (s)", "step");
  const until = element("select", "", bar);
  until.setAttribute("aria-label", "run until");
  const argument = element("span", "", bar);
  const run = button("run until", "run until that happens (r)", "run", () => ({
    until: until.value,
    argument: argument.firstChild?.value ?? "",
  }));
  const stop = button("stop", "stop after the step in progress", "stop");
  const hold = button("pause the engine's thread", "so that it can be stepped", "pause");
  const go = button("resume", "let the engine's thread go on", "resume");
  const policyLabel = element("label", "tk-muted", bar, "policy ");
  const policy = element("select", "", policyLabel);
  policy.onchange = () => frames.send("policy", { policy: policy.value });
  const hint = element("span", "tk-muted", bar);
  const status = element("div", "tk-status", root);
  status.setAttribute("role", "status");
  const plan = element("div", "tk-plan", root);
  let meta = {};

  function fill(select, options, value) {
    const same = [...select.options].map((o) => o.value).join("\n") === options.map((o) => o[0]).join("\n");
    if (!same) {
      select.replaceChildren();
      for (const [name, label] of options) element("option", "", select, label).value = name;
    }
    if (value !== undefined) select.value = value;
  }

  function drawArgument() {
    const kind = meta.until.find(([name]) => name === until.value)?.[2];
    const old = argument.firstChild;
    if (kind === "request") {
      const select = old?.tagName === "SELECT" ? old : null;
      const choice = select ?? make("select", { "aria-label": "request" });
      if (!select) argument.replaceChildren(choice);
      fill(choice, meta.requests.length ? meta.requests.map((name) => [name, name]) : [["", "no request yet"]]);
      choice.disabled = !meta.requests.length;
    } else if (kind === "number") {
      if (old?.tagName !== "INPUT")
        argument.replaceChildren(
          make("input", { type: "number", min: 0, "aria-label": "number", style: "width: 80px" }),
        );
      if (argument.firstChild.value === "") argument.firstChild.value = meta.next_step + 10;
    } else argument.replaceChildren();
  }

  function draw(given) {
    meta = given;
    fill(until, meta.until);
    fill(policy, meta.policies.map((name) => [name, name]), meta.policy);
    drawArgument();
    const held = meta.is_busy || meta.is_running || meta.is_closed;
    const reason = meta.is_closed ? "the engine is closed"
      : meta.is_busy ? "a run is in progress"
      : meta.is_running ? "the engine's thread runs the steps: pause it first" : "";
    const idle = meta.has_work ? "" : "nothing to run: add a request";
    const allow = (made, why) => {
      made.disabled = Boolean(why);
      made.title = why || made.dataset.title;
    };
    for (const made of [step, run]) allow(made, reason || idle);
    allow(back, reason || (meta.can_go_back ? "" : "no step has run yet"));
    hint.textContent = reason ? "" : idle;
    back.hidden = !meta.has_rewind;
    policy.disabled = meta.is_busy || meta.is_closed;
    stop.hidden = !meta.is_busy;
    hold.hidden = !meta.is_running || meta.is_busy;
    go.hidden = !meta.is_paused || meta.is_busy;
    status.textContent = meta.status;
    status.classList.toggle("tk-error", meta.is_error);
    if (plan.dataset.html !== meta.plan) {
      plan.dataset.html = meta.plan;
      plan.innerHTML = meta.plan;
    }
  }

  until.onchange = drawArgument;
  const press = (made) => () => made.disabled || made.hidden || made.click();
  keys(root, { s: press(step), b: press(back), r: press(run), ArrowRight: press(step), ArrowLeft: press(back) });
  const frames = onFrame(model, (kind, given) => kind === "state" && draw(given), el);
  return () => (frames.close(), page.dispose());
}

export default { render };
