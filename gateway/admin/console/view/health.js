// One glance: is anything wrong, and what?
import { h } from "../script/dom.js";
import { count, lasting, named, own, t, when } from "../script/words.js";

/** What needs attention, the worst first: pairs of a kind and a text. */
export function worries(status) {
  const found = [];
  const say = (kind, key, values) => found.push([kind, t(key, values)]);
  if (status.draining) say("bad", "worry.draining");
  if (status.config.mistakes.length) say("bad", "worry.config");
  const { ready, wanted } = status.workers;
  if (ready < wanted) say("bad", "worry.workers", { ready, wanted });
  for (const breaker of status.breakers) {
    if (breaker.now !== "closed") say("bad", "worry.breaker", { name: breaker.upstream, state: named("breaker", breaker.now) });
  }
  if (status.limit_store.shared && !status.limit_store.up) say("bad", "worry.store");
  for (const upstream of status.upstreams) {
    const out = upstream.servers.filter((server) => server.ejected > 0).length;
    if (out) say("warn", "worry.ejected", { name: upstream.name, count: out });
  }
  const late = status.config.restart.map((one) => one.path).join(", ");
  if (late) say("warn", "worry.restart", { keys: late });
  if (status.step.step > 0) say("warn", "worry.step", { step: status.step.step, name: named("step", status.step.name) });
  const off = status.features.filter((feature) => !feature.on && feature.pin);
  if (off.length) say("warn", "worry.off", { names: off.map((feature) => feature.name).join(", ") });
  const changed = status.limits.filter((limit) => limit.state === "changed");
  if (changed.length) say("warn", "worry.limits", { names: changed.map((limit) => limit.name).join(", ") });
  if (status.shut_offs) say("quiet", "worry.shut", { count: count(status.shut_offs) });
  const silent = status.panels.filter((panel) => panel.error);
  if (silent.length) say("warn", "worry.panel", { titles: silent.map((panel) => own(panel.title)).join(", "), error: silent[0].error });
  return found;
}

/** The line in its place while the gateway is lost, since then (ms since 1970). */
export const lost = (since) => [
  h("ul", { class: "worries" }, h("li", { class: "bad" }, t("worry.lost", { time: when(since) }))),
  h("p", { class: "facts" }, h("span", {}, t("lost.old", { time: lasting((Date.now() - since) / 1000) })), h("span", {}, t("lost.again"))),
];

/** The line below the header. */
export function health(status) {
  const found = worries(status);
  const { ready, wanted } = status.workers;
  const facts = [
    t("fact.workers", { ready, wanted }),
    status.hosts?.length > 1 ? t("fact.hosts", { count: status.hosts.length }) : null,
    t(status.limit_store.shared ? "fact.shared" : "fact.local"),
    t("fact.config", { version: status.config.version }),
    t("fact.uptime", { time: lasting(status.uptime_seconds) }),
  ].filter(Boolean);
  return [
    h(
      "ul",
      { class: "worries" },
      found.length
        ? found.map(([kind, text]) => h("li", { class: kind }, text))
        : h("li", { class: "good" }, t("worry.none")),
    ),
    h("p", { class: "facts" }, facts.map((fact) => h("span", {}, fact))),
  ];
}
