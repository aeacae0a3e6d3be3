// The console: who is there, what holds now, and every section drawn anew once a second.
import { config } from "../view/config.js";
import { features } from "../view/features.js";
import { health, lost } from "../view/health.js";
import { ladder, pressure } from "../view/ladder.js";
import { limits } from "../view/limits.js";
import { fetchedWords, panels } from "../view/panels.js";
import { routes } from "../view/routes.js";
import { fetchedShut, shutOffs } from "../view/shutoffs.js";
import { latency, traffic } from "../view/traffic.js";
import { fetched, forget, trail } from "../view/trail.js";
import { upstreams } from "../view/upstreams.js";
import { know, listenToButtons } from "./actions.js";
import { fill } from "./dom.js";
import { foldable } from "./fold.js";
import { recall, remember } from "./history.js";
import { listenToKeys } from "./keys.js";
import { call, logIn, logOut, whoIs } from "./session.js";
import { listen } from "./stream.js";
import { toast } from "./toast.js";
import { named, t, when } from "./words.js";

const $ = (id) => document.getElementById(id);
const VIEWS = { health, traffic, latency, pressure, ladder, features, upstreams, limits, panels, routes, config, shutoffs: shutOffs, trail };
const LINKS = { live: "good", asking: "warn", lost: "bad" };
const AGAIN = 2000; // ms until a page whose gateway is away asks again who is there
let stop = null; // of the stream
let away = null; // since when the gateway is lost, ms since 1970
let shown = null; // the last status
let role = "viewer";
let entering = false; // by the form, whose focus goes to the page

function draw(status, ...only) {
  for (const [id, view] of Object.entries(VIEWS)) {
    if (!only.length || only.includes(id)) fill($(id), [view(status, role === "operator" && away === null)]);
  }
  if (away !== null) fill($("health"), [lost(away)]);
}

function take(status) {
  shown = status;
  know(status);
  remember(status);
  draw(status);
  $("main").hidden = false;
  fetched(status).then((grown) => grown && draw(status, "trail"), () => {});
  fetchedWords(status).then((others) => others && draw(status, "panels", "health"), () => {});
  fetchedShut(status).then((grown) => grown && draw(status, "shutoffs"), () => {});
  if (entering) $("main").focus({ preventScroll: true });
  entering = false;
}

const again = () => call("GET", "/api/status").then(take, () => {});

/** Have the curves begin before this page did. */
async function remembered() {
  const { points } = await call("GET", "/api/history").catch(() => ({ points: [] }));
  if (!points.length) return;
  recall(points);
  if (shown !== null) draw(shown);
}

/** Tell how we are connected; what is old is dimmed, and changes nothing. */
function link(state, since) {
  const before = away;
  away = state === "lost" ? since : null;
  $("link").className = `mark ${LINKS[state]}`;
  const said = t(`link.${state}`, { time: when(since) });
  if ($("link").textContent !== said) $("link").textContent = said; // it is read out
  document.body.classList.toggle("lost", away !== null);
  if (before !== null && away === null) remembered();
  if (shown === null) return;
  if (away !== before || away !== null) draw(shown, ...(away === before ? ["health"] : []));
  name();
}

/** The window's title says what can't wait until somebody looks. */
function name() {
  const mark = away !== null ? "!" : shown?.step.step;
  document.title = mark ? `(${mark}) Tidegate` : "Tidegate";
}

function enter(page) {
  role = page.role;
  $("enter").hidden = true;
  $("refused-entry").textContent = "";
  $("who").textContent = page.name === page.role ? named("role", page.role) : `${page.name} · ${named("role", page.role)}`;
  document.body.classList.add("in");
  remembered();
  stop = listen(take, link, () => leave(t("refused.unauthorized")));
}

/** Who is there; while nobody says, the page says so and asks on. */
async function begin(since) {
  try {
    enter(await whoIs());
  } catch (error) {
    if (error.status === 401) return leave(error.message);
    link("lost", since);
    setTimeout(begin, AGAIN, since);
  }
}

/** Show the form, and why. */
function leave(why = "") {
  stop?.();
  stop = null;
  shown = away = null;
  name();
  forget();
  $("link").textContent = "";
  $("refused-entry").textContent = why;
  document.body.classList.remove("lost");
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
$("leave").addEventListener("click", () => logOut().then(() => leave(), (error) => (error.status ? leave() : toast(error.message, "bad"))));
listenToButtons(document.body, again);
foldable(document.querySelectorAll("main > section"));
listenToKeys([...document.querySelectorAll("main > section")]);
document.addEventListener("visibilitychange", () => !document.hidden && shown && again());

if (document.documentElement.dataset.session === "yes") begin(Date.now());
else leave();
