// The operators' page: reads /api/status every second, changes through the same API.
const $ = (id) => document.getElementById(id);
const main = document.querySelector("main");
let token = sessionStorage.getItem("tidegate-token") ?? "";
let before = null; // the last totals, for rates
let timer = 0;

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${token}` },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw Object.assign(new Error(data.detail ?? `refused with ${answer.status}`), { status: answer.status });
  }
  return data;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function toast(text) {
  $("toast").textContent = text;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("toast").textContent = ""), 5000);
}

async function change(path, value) {
  const body = { ...value };
  if ($("for").value && Object.values(value)[0] !== "auto") body.for = $("for").value;
  if ($("reason").value) body.reason = $("reason").value;
  try {
    const done = await call("PUT", path, body);
    toast(`done: holds in ${done.applied} of ${done.workers} workers`);
  } catch (error) {
    toast(error.message);
  }
  await refresh();
}

const pinned = (pin) =>
  pin ? [pin.seconds_left === null ? "until changed" : `${pin.seconds_left} s left`, pin.reason].filter(Boolean).join(" · ") : "";

function choices(now, words, act, ask = []) {
  const group = element("span", { class: "group", role: "group" });
  for (const [word, text] of words) {
    const onclick = () => (!ask.includes(word) || confirm(`${text}: are you sure?`)) && act(word);
    group.append(element("button", { type: "button", "aria-pressed": String(word === now), onclick }, text));
  }
  return group;
}

function row(...cells) {
  return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
}

function mark(text, kind) {
  return element("span", { class: kind }, text);
}

function show(status) {
  const now = performance.now();
  const tiles = [];
  for (const [outcome, count] of Object.entries(status.requests)) {
    const rate = before ? ((count - (before.requests[outcome] ?? 0)) * 1000) / (now - before.at) : 0;
    tiles.push([`${outcome} /s`, rate.toFixed(rate < 10 ? 1 : 0)]);
  }
  before = { requests: status.requests, at: now };
  const high = Object.entries(status.signals).reduce((a, b) => (b[1] > a[1] ? b : a))[0].replace("_", " ");
  tiles.push(["pressure", `${Math.round(status.pressure * 100)} %${status.pressure ? `, ${high}` : ""}`]);
  for (const up of status.upstreams) tiles.push([`in flight, ${up.name}`, `${up.in_flight} of ${up.concurrency_limit ?? "∞"}`]);
  tiles.push(["limits", status.limit_store.up ? (status.limit_store.shared ? "shared" : "local") : "Redis away"]);
  tiles.push(["workers", `${status.workers.ready} of ${status.workers.wanted}`]);
  $("traffic").replaceChildren(...tiles.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));

  const step = status.step;
  $("ladder").replaceChildren(
    ...step.steps.map((rung) =>
      element("li", {}, element("button", {
        type: "button",
        "aria-pressed": String(rung.step === step.step),
        onclick: () => (rung.only !== "critical" || confirm("Serve only critical requests?")) && change("/api/step", { step: rung.step }),
      }, `${rung.step} ${rung.name}`, element("small", {}, rung.only ? "only critical" : rung.off.length ? `without ${rung.off.join(", ")}` : "everything on")))),
    element("li", {}, element("button", { type: "button", "aria-pressed": String(step.state === "auto"), onclick: () => change("/api/step", { step: "auto" }) }, "auto", element("small", {}, pinned(step.pin) || "pressure decides"))),
  );
  $("features").replaceChildren(...status.features.map((f) =>
    row(f.name, mark(f.on ? "on" : f.fallback ? "off, fallback" : "off", f.on ? "good" : "warn"),
      choices(f.state, [["on", "on"], ["off", "off"], ["auto", "auto"]], (state) => change(`/api/features/${f.name}`, { state })), pinned(f.pin))));
  $("breakers").replaceChildren(...status.breakers.filter((b) => b.configured).map((b) =>
    row(b.upstream, mark(b.now, b.now === "closed" ? "good" : "bad"),
      choices(b.state, [["open", "force open"], ["closed", "force closed"], ["auto", "auto"]], (state) => change(`/api/breakers/${b.upstream}`, { state }), ["open", "closed"]), pinned(b.pin))));
  if (!$("limits").contains(document.activeElement)) {
    $("limits").replaceChildren(...status.limits.map((l) => {
      const input = element("input", { value: l.rate, size: 14, "aria-label": `rate of ${l.name}` });
      const counts = Object.entries(l.checks).map(([k, v]) => `${v} ${k}`).join(", ");
      return row(l.name, l.rate === l.configured ? l.rate : mark(`${l.rate} (was ${l.configured})`, "warn"), counts,
        element("span", { class: "group" }, input,
          element("button", { type: "button", onclick: () => change(`/api/limits/${l.name}`, { rate: input.value.trim() }) }, "set"),
          element("button", { type: "button", onclick: () => change(`/api/limits/${l.name}`, { rate: "auto" }) }, "auto")), pinned(l.pin));
    }));
  }
  $("mistakes").hidden = !status.config.mistakes.length;
  $("mistakes").textContent = `The configuration file is not used; the one before holds.\n${status.config.mistakes.join("\n")}`;
  $("state").textContent = status.draining ? "draining" : `serving for ${Math.round(status.uptime_seconds)} s · configuration ${status.config.version}`;
}

async function audit() {
  const { changes } = await call("GET", "/api/audit");
  $("audit").replaceChildren(...changes.slice(0, 20).map((c) =>
    row(new Date(c.at).toLocaleString(), `${c.kind} ${c.name}`, `${c.old} → ${c.value}`, c.by, c.reason)));
}

async function refresh() {
  clearTimeout(timer);
  try {
    show(await call("GET", "/api/status"));
    await audit();
    main.hidden = $("leave").hidden = false;
    $("enter").hidden = true;
    sessionStorage.setItem("tidegate-token", token);
  } catch (error) {
    $("state").textContent = error.status ? error.message : "the gateway does not answer";
    if (error.status === 401) return leave();
  }
  timer = setTimeout(refresh, 1000);
}

function leave() {
  clearTimeout(timer);
  token = "";
  sessionStorage.removeItem("tidegate-token");
  main.hidden = $("leave").hidden = true;
  $("enter").hidden = false;
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  refresh();
});
$("leave").addEventListener("click", leave);
if (token) refresh();
