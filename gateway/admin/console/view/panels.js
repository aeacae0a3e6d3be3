// Numbers of what stands behind the gate, as the configuration names them: stock, orders, queues.
import { mark, number, table } from "../script/controls.js";
import { h } from "../script/dom.js";
import { call } from "../script/session.js";
import { count, lasting, own, rate, speak, t, told } from "../script/words.js";

let seen = null; // the samples before these, for rates: {at, values}
let rates = new Map();
let spoken = null; // the configuration whose words are known

/** Fetch the words for them when another configuration holds; whether one did. */
export async function fetchedWords(status) {
  const { version, since } = status.config;
  const holds = `${version} ${since}`;
  if (holds === spoken) return false;
  spoken = holds;
  try {
    speak((await call("GET", "/api/config")).config.admin.words);
  } catch (error) {
    spoken = null; // the next status tries again
    throw error;
  }
  return true;
}

/** Each panel as a table, its samples laid out by their labels. */
export function panels(status) {
  remember(status);
  if (!status.panels.length) return h("p", { class: "none" }, t("panels.none"));
  return h("div", { class: "panels" }, status.panels.map((panel) =>
    h(
      "section",
      { class: "panel", "data-key": `panel ${panel.title}` },
      h(
        "h3",
        {},
        own(panel.title),
        panel.error ? mark(panel.error, "bad") : null,
        panel.seconds_old > 5 ? h("small", {}, t("panels.old", { time: lasting(panel.seconds_old) })) : null,
      ),
      laidOut(panel),
      panel.left_out ? h("p", { class: "none" }, t("panels.left", { count: panel.left_out })) : null,
    ),
  ));
}

const idOf = (panel, sample) => `${panel.title} ${sample.metric} ${JSON.stringify(sample.labels)}`;

function remember(status) {
  const values = new Map(status.panels.flatMap((panel) => panel.samples.map((sample) => [idOf(panel, sample), sample.value])));
  const changed = !seen || [...values].some(([id, value]) => seen.values.get(id) !== value);
  if (!changed && status.at - seen.at < 4) return; // the same fetch, shown again
  if (seen) {
    const seconds = status.at - seen.at;
    rates = new Map([...values].map(([id, value]) => [id, (value - (seen.values.get(id) ?? value)) / seconds]));
  }
  seen = { at: status.at, values };
}

/** A table for each set of labels; metrics that speak of the same things share one. */
function laidOut(panel) {
  const groups = new Map();
  for (const metric of new Set(panel.samples.map((sample) => sample.metric))) {
    const samples = panel.samples.filter((sample) => sample.metric === metric);
    const labels = Object.keys(samples[0].labels);
    const things = labels.length > 1 ? metric : samples.map((sample) => Object.values(sample.labels)).sort();
    const of = `${labels}: ${things}`;
    groups.set(of, [...(groups.get(of) ?? []), ...samples]);
  }
  return [...groups.values()].map((samples) => {
    const labels = Object.keys(samples[0].labels);
    const part = { title: panel.title, samples };
    if (labels.length === 2) return crossed(part, labels);
    if (labels.length === 1) return byLabel(part, labels[0], [...new Set(samples.map((sample) => sample.metric))]);
    return listed(part);
  });
}

/** No label, or many: a line for each. */
function listed(panel) {
  const metrics = [...new Set(panel.samples.map((sample) => sample.metric))];
  return table(own(panel.title), [t("panels.what"), t("panels.value")], panel.samples.map((sample) => ({
    key: idOf(panel, sample),
    cells: [[short(sample.metric, metrics), " ", Object.values(sample.labels).map(own).join(" ")], number(valueOf(panel, sample))],
  })));
}

/** Two labels: one down, one across. */
function crossed(panel, names) {
  const distinct = (name) => [...new Set(panel.samples.map((sample) => sample.labels[name]))];
  const [across, down] = distinct(names[0]).length < distinct(names[1]).length ? names : [names[1], names[0]];
  const columns = distinct(across);
  return table(own(panel.title), [down, ...columns].map(own), distinct(down).map((row) => ({
    key: row,
    cells: [own(row), ...columns.map((column) => {
      const sample = panel.samples.find((one) => one.labels[down] === row && one.labels[across] === column);
      return number(sample ? valueOf(panel, sample) : "–");
    })],
  })));
}

/** One label: its values down, metrics across. */
function byLabel(panel, name, metrics) {
  const rows = [...new Set(panel.samples.map((sample) => sample.labels[name]).filter((value) => value !== undefined))];
  return table(own(panel.title), [own(name), ...metrics.map((metric) => short(metric, metrics))], rows.map((row) => ({
    key: row,
    cells: [own(row), ...metrics.map((metric) => {
      const sample = panel.samples.find((one) => one.metric === metric && one.labels[name] === row);
      return number(sample ? valueOf(panel, sample) : "–");
    })],
  })));
}

function valueOf(panel, sample) {
  if (!sample.metric.endsWith("_total")) return Number.isInteger(sample.value) ? count(sample.value) : rate(sample.value);
  const grows = rates.get(idOf(panel, sample)) ?? 0;
  return [count(sample.value), grows > 0 ? h("small", { class: "grows" }, `+${rate(grows)}${t("per.second")}`) : null];
}

/** A metric's name: the configuration's word for it, else without what all of them begin with. */
function short(metric, all) {
  const word = told(metric);
  if (word !== null) return word;
  const parts = metric.replace(/_total$/, "").split("_");
  const others = all.filter((one) => one !== metric).map((one) => one.split("_"));
  let same = 1;
  while (others.length && same < parts.length - 1 && others.every((other) => other[same] === parts[same])) same += 1;
  return parts.slice(same).join(" ");
}
