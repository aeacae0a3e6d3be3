// The busiest routes.
import { number, table } from "../script/controls.js";
import { h, svg } from "../script/dom.js";
import { count, ms, named, rate, t } from "../script/words.js";
import { OUTCOMES } from "./traffic.js";

const MOST = 12;

/** Traffic by route, the busiest first. */
export function routes(status) {
  const { routes: all, routes_left_out: leftOut } = status.traffic;
  const shown = all.slice(0, MOST);
  const rest = all.length - shown.length + leftOut;
  const head = ["route", "rate", "outcomes", "p50", "p99", "total"].map((name) => t(`routes.${name}`));
  return [
    table(
      t("routes.title"),
      head,
      shown.map((route) => ({
        key: `route ${route.route}`,
        cells: [
          h("code", {}, route.route),
          number(`${rate(sum(route.per_second))}`),
          shares(sum(route.per_second) > 0 ? route.per_second : route.total),
          number(ms(route.latency_ms.p50)),
          number(ms(route.latency_ms.p99)),
          number(count(sum(route.total))),
        ],
      })),
    ),
    rest > 0 ? h("p", { class: "none" }, t("routes.rest", { count: rest })) : null,
  ];
}

const sum = (rates) => Object.values(rates).reduce((total, value) => total + value, 0);

/** How a route's requests end, as one bar. */
function shares(rates) {
  const total = sum(rates);
  let from = 0;
  const parts = OUTCOMES.filter((name) => rates[name] > 0).map((name) => {
    const width = (rates[name] / total) * 100;
    const part = svg("rect", { class: `o-${name}`, x: from.toFixed(2), width: width.toFixed(2), height: 6 });
    from += width;
    return part;
  });
  const words = OUTCOMES.filter((name) => rates[name] > 0).map((name) => `${named("outcome", name)} ${Math.round((rates[name] / total) * 100)} %`);
  return svg("svg", { class: "shares", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": words.join(", ") }, svg("title", {}, words.join(", ")), parts);
}
