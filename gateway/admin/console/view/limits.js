// Limits: what holds, what is refused, and who is at it.
import { button, mark, number, pinned, table } from "../script/controls.js";
import { spark } from "../script/curve.js";
import { h } from "../script/dom.js";
import { past } from "../script/history.js";
import { count, named, rate, t } from "../script/words.js";

/** Each limit; the busiest keys stand below. */
export function limits(status, may) {
  const head = ["name", "rate", "per", "allowed", "denied", "curve", "change"].map((name) => t(`limits.${name}`));
  return [
    table(
      t("limits.title"),
      head,
      status.limits.map((limit) => ({
        key: `limit ${limit.name}`,
        cells: [
          limit.name,
          rateOf(limit),
          limit.per.map((key) => named("per", key)).join(" + "),
          number(rate(limit.per_second.allowed ?? 0)),
          number(rate(limit.per_second.denied ?? 0)),
          spark(t("limits.denied"), past(`denied ${limit.name}`)),
          h(
            "span",
            { class: "choices" },
            button(t("limits.set"), "limit", { name: limit.name, rate: limit.rate, configured: limit.configured }, { disabled: !may }),
            limit.state === "changed" ? button(t("auto"), "limit-auto", { name: limit.name }, { disabled: !may }) : null,
          ),
        ],
      })),
    ),
    busiest(status),
  ];
}

function rateOf(limit) {
  const words = limit.rate === "off" || limit.rate === "shadow" ? t(`limits.${limit.rate}`) : limit.rate;
  const shadow = limit.mode !== "enforce" && limit.state !== "changed" ? mark(named("mode", limit.mode), "quiet") : null;
  if (limit.state !== "changed") return [words, " ", shadow];
  return h("span", {}, mark(words, "warn"), h("small", { class: "quiet" }, t("limits.was", { rate: limit.configured })), pinned(limit.pin));
}

/** Who is at a limit or near it. */
function busiest(status) {
  const busy = status.limits.filter((limit) => limit.busiest.length);
  return h(
    "details",
    { "data-key": "busiest", open: true },
    h("summary", {}, t("busiest.title")),
    busy.length ? h("p", { class: "none" }, t("busiest.says")) : null,
    busy.length
      ? h(
          "div",
          { class: "keys" },
          busy.map((limit) =>
            h(
              "div",
              { "data-key": `busy ${limit.name}` },
              h("h3", {}, limit.name, h("small", { class: "quiet" }, t("busiest.unit"))),
              h(
                "ol",
                {},
                limit.busiest.slice(0, 5).map((one) => h("li", {}, keyOf(one.key), h("b", { title: one.error ? t("busiest.error", { count: one.error }) : null }, count(one.count)))),
              ),
            ),
          ),
        )
      : h("p", { class: "none" }, t("busiest.none")),
    status.role === "viewer" && busy.length ? h("p", { class: "none" }, t("busiest.hidden")) : null,
  );
}

function keyOf(key) {
  const kind = { "u:": "user", "a:": "address" }[key.slice(0, 2)];
  return h("span", { class: "key" }, kind ? [h("small", {}, t(`busiest.${kind}`)), h("code", { title: key.slice(2) }, key.slice(2))] : h("code", {}, key));
}
