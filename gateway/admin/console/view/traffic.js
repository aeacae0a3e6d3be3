// What becomes of requests, now and over the last minutes.
import { areas, ceiling, lines } from "../script/curve.js";
import { h } from "../script/dom.js";
import { latest, past, width } from "../script/history.js";
import { lasting, ms, named, percent, rate, t } from "../script/words.js";

// From well to sick: the order in which the areas lie upon one another.
export const OUTCOMES = ["proxied", "cached", "degraded", "limited", "shed", "rejected", "broken", "failed"];
const SERVED = ["proxied", "cached", "degraded"];

/** Requests by outcome. */
export function traffic(status) {
  const there = [...OUTCOMES, ...Object.keys(status.requests).filter((name) => !OUTCOMES.includes(name))];
  const now = Object.fromEntries(there.map((name) => [name, latest(`outcome ${name}`)]));
  const all = there.reduce((sum, name) => sum + now[name], 0);
  const served = SERVED.reduce((sum, name) => sum + now[name], 0);
  const curves = there.map((name) => [`o-${name}`, past(`outcome ${name}`)]);
  const length = Math.max(0, ...curves.map(([, values]) => values.length));
  const sums = Array.from({ length }, (_, at) =>
    curves.reduce((sum, [, values]) => sum + (values[values.length - length + at] ?? 0), 0),
  );
  const most = ceiling(Math.max(0, ...sums));
  return [
    h(
      "div",
      { class: "figures" },
      figure(t("traffic.all"), rate(all), t("per.second")),
      figure(t("traffic.served"), all > 0 ? percent(served / all) : "–", ""),
      figure(t("traffic.failed"), rate(now.failed + now.broken), t("per.second"), now.failed + now.broken > 0 ? "bad" : ""),
    ),
    h(
      "figure",
      { class: "plot" },
      h("span", { class: "top" }, t("traffic.top", { rate: rate(most) })),
      areas(t("traffic.title"), curves, most),
      h("span", { class: "span" }, t("traffic.span", { time: lasting(width()) })),
    ),
    h(
      "ul",
      { class: "legend" },
      there.map((name) =>
        h(
          "li",
          { class: now[name] > 0 ? null : "idle", title: named("outcome.says", name) },
          h("i", { class: `dot o-${name}` }),
          h("span", {}, named("outcome", name)),
          h("b", {}, rate(now[name])),
        ),
      ),
    ),
  ];
}

/** How long requests take. */
export function latency(status) {
  const { p50, p90, p99 } = status.traffic.latency_ms;
  const most = ceiling(Math.max(10, ...past("p99")));
  return [
    h("div", { class: "figures" }, figure("p50", ms(p50)), figure("p90", ms(p90)), figure("p99", ms(p99), "", p99 > 1000 ? "warn" : "")),
    h(
      "figure",
      { class: "plot low" },
      h("span", { class: "top" }, ms(most)),
      lines(t("latency.title"), [["l-p99", past("p99")], ["l-p50", past("p50")]], most),
      h("span", { class: "span" }, h("i", { class: "dash l-p50" }), "p50 ", h("i", { class: "dash l-p99" }), "p99"),
    ),
  ];
}

const figure = (name, value, unit = "", kind = "") =>
  h("div", { class: `figure ${kind}` }, h("span", { class: "name" }, name), h("span", { class: "value" }, value, unit ? h("small", {}, unit) : null));
