// Who changed what, when and why; and who was refused.
import { call } from "../script/session.js";
import { mark, table } from "../script/controls.js";
import { h } from "../script/dom.js";
import { dated, ms, named, t } from "../script/words.js";

const MOST = 30;
let entries = { changes: [], refused: [] };
let serial = null;

/** Fetch the trail when it has grown; whether it had. */
export async function fetched(status) {
  if (status.trail === serial) return false;
  serial = status.trail;
  try {
    entries = await call("GET", "/api/audit");
  } catch (error) {
    serial = null; // the next status tries again
    throw error;
  }
  return true;
}

/** Forget it, as when somebody else logs in. */
export const forget = () => {
  serial = null;
  entries = { changes: [], refused: [] };
};

/** Both lists. */
export function trail() {
  const head = ["when", "who", "what", "change", "why", "effect"].map((name) => t(`trail.${name}`));
  const entered = entries.changes.filter((entry) => entry.kind === "session");
  const shown = entries.changes.filter((entry) => entry.kind !== "session");
  const rows = (list) => list.slice(0, MOST).map((entry) => row(entry, changed(entry), effect(entry)));
  return [
    table(t("trail.title"), head, rows(shown)),
    h(
      "details",
      { "data-key": "entered" },
      h("summary", {}, t("trail.entered", { count: entered.length })),
      table(t("trail.entered", { count: entered.length }), head, rows(entered)),
    ),
    h(
      "details",
      { "data-key": "refused" },
      h("summary", {}, t("trail.refused", { count: entries.refused.length })),
      table(t("trail.refused", { count: entries.refused.length }), head, entries.refused.slice(0, MOST).map((entry) => row(entry, h("code", {}, entry.detail), mark(String(entry.status), "bad")))),
    ),
  ];
}

const nothing = () => h("span", { class: "nothing quiet" }, "–");

function row(entry, change, came) {
  const who = entry.by.split(" at ")[0];
  return {
    key: `${entry.at} ${entry.kind} ${entry.name} ${entry.by}`,
    cells: [
      h("time", { datetime: new Date(entry.at).toISOString() }, dated(entry.at)),
      h("span", { title: entry.by }, named("by", who), " ", entry.role && entry.role !== who ? h("small", { class: "quiet" }, named("role", entry.role)) : null),
      [named("kind", entry.kind), " ", nameOf(entry)],
      change,
      entry.reason || nothing(),
      came,
    ],
  };
}

/** What it is called: of a file its last part, the whole of it for who points at it. */
const nameOf = (entry) =>
  entry.kind === "config" ? h("b", { title: entry.name }, entry.name.split("/").pop()) : h("b", {}, entry.name);

const word = (kind, value) => (["on", "off", "auto"].includes(value) ? t(value) : kind === "breaker" ? named("breaker", value) : named("value", value));

/** From what to what, and until when; of a configuration, two numbers of which say little, what is another in it. */
function changed(entry) {
  const { kind, old, value, detail, until } = entry;
  const change = old || value ? h("span", { class: "change" }, h("s", {}, word(kind, old)), " → ", h("b", {}, word(kind, value))) : null;
  const end = until ? [" ", h("small", { class: "quiet" }, t("trail.until", { time: dated(until * 1000) }))] : null;
  if (!detail || entry.result === "heard") return change ? [change, end] : nothing(); // the effect says that another host did it
  return change ? [h("code", {}, detail), " ", h("small", { class: "quiet" }, change), end] : h("span", {}, detail);
}

function effect(entry) {
  if (entry.result === "heard") return h("span", { class: "quiet" }, t("trail.heard"));
  if (entry.workers === null || entry.workers === undefined) return nothing();
  const text = t("effect.short", { applied: entry.applied, workers: entry.workers, ms: ms(entry.ms) });
  return entry.applied < entry.workers ? mark(text, "warn") : text;
}
