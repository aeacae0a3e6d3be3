// The console: who is there, what holds now, and every section drawn anew once a second.
import { config } from "../view/config.js";
import { features } from "../view/features.js";
import { health } from "../view/health.js";
import { ladder, pressure } from "../view/ladder.js";
import { limits } from "../view/limits.js";
import { panels } from "../view/panels.js";
import { routes } from "../view/routes.js";
import { fetchedShut, shutOffs } from "../view/shutoffs.js";
import { latency, traffic } from "../view/traffic.js";
import { fetched, forget, trail } from "../view/trail.js";
import { upstreams } from "../view/upstreams.js";
import { know, listenToButtons } from "./actions.js";
import { fill } from "./dom.js";
import { remember } from "./history.js";
import { listenToKeys } from "./keys.js";
import { call, logIn, logOut, whoIs } from "./session.js";
import { listen } from "./stream.js";
import { named, t } from "./words.js";

const $ = (id) => document.getElementById(id);
const VIEWS = { health, traffic, latency, pressure, ladder, features, upstreams, limits, panels, routes, config, shutoffs: shutOffs, trail };
const LINKS = { live: "good", asking: "warn", lost: "bad" };
let stop = null; // of the stream
let shown = null; // the last status
let role = "viewer";
let entering = false; // by the form, whose focus goes to the page

function draw(status, ...only) {
  for (const [id, view] of Object.entries(VIEWS)) {
    if (!only.length || only.includes(id)) fill($(id), [view(status, role === "operator")]);
  }
}

function take(status) {
  shown = status;
  know(status);
  remember(status);
  draw(status);
  $("main").hidden = false;
  fetched(status).then((grown) => grown && draw(status, "trail"), () => {});
  fetchedShut(status).then((grown) => grown && draw(status, "shutoffs"), () => {});
  if (entering) $("main").focus({ preventScroll: true });
  entering = false;
  document.title = status.step.step > 0 ? `(${status.step.step}) Tidegate` : "Tidegate";
}

const again = () => call("GET", "/api/status").then(take, () => {});

function link(state) {
  $("link").className = `mark ${LINKS[state]}`;
  $("link").textContent = t(`link.${state}`);
}

function enter(page) {
  role = page.role;
  $("enter").hidden = true;
  $("refused-entry").textContent = "";
  $("who").textContent = page.name === page.role ? named("role", page.role) : `${page.name} · ${named("role", page.role)}`;
  document.body.classList.add("in");
  stop = listen(take, link, leave);
}

function leave() {
  stop?.();
  stop = null;
  shown = null;
  forget();
  document.body.classList.remove("in");
  $("main").hidden = true;
  $("enter").hidden = false;
  $("token").focus();
}

$("enter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  try {
    const page = await logIn(token);
    entering = true;
    enter(page);
  } catch (error) {
    $("refused-entry").textContent = error.status === 401 ? t("enter.wrong") : error.message;
    $("token").focus();
  }
});
$("leave").addEventListener("click", () => logOut().finally(leave));
listenToButtons(document.body, again);
listenToKeys([...document.querySelectorAll("main > section")]);
document.addEventListener("visibilitychange", () => !document.hidden && shown && again());

if (document.documentElement.dataset.session === "yes") whoIs().then(enter, leave);
else leave();
