// Upstreams: how full, how quick, which servers are left alone, and the breaker before them.
import { choices, mark, number, pinned, table } from "../script/controls.js";
import { gauge, spark } from "../script/curve.js";
import { h } from "../script/dom.js";
import { past } from "../script/history.js";
import { count, lasting, ms, named, t } from "../script/words.js";

const STATES = { closed: "good", "half-open": "warn", open: "bad" };

/** Each upstream with its breaker, load, queue and servers. */
export function upstreams(status, may) {
  return status.upstreams.map((upstream) => {
    const breaker = status.breakers.find((one) => one.upstream === upstream.name);
    return h(
      "article",
      { class: "upstream", "data-key": `upstream ${upstream.name}` },
      h("header", {}, h("h3", {}, upstream.name), breaker.configured ? breakerOf(breaker, may) : h("span", { class: "quiet" }, t("breaker.none"))),
      breaker.pin ? h("p", { class: "note" }, pinned(breaker.pin)) : null,
      Object.keys(breaker.routes).length ? routesOf(breaker) : null,
      h("div", { class: "loads" }, load(upstream), speed(upstream), queue(upstream)),
      servers(upstream),
    );
  });
}

function breakerOf(breaker, may) {
  return h(
    "div",
    { class: "breaker" },
    h("span", { class: "name" }, t("breaker.title")),
    mark(named("breaker", breaker.now), STATES[breaker.now] ?? "quiet"),
    choices(
      t("breaker.of", { name: breaker.upstream }),
      breaker.state,
      [["open", t("breaker.force.open")], ["closed", t("breaker.force.closed")], ["auto", t("breaker.force.auto")]],
      "breaker",
      { name: breaker.upstream },
      may,
    ),
  );
}

const routesOf = (breaker) =>
  h("p", { class: "note" }, Object.entries(breaker.routes).map(([route, state]) => [h("code", {}, route), " ", mark(named("breaker", state), STATES[state]), " "]));

function load(upstream) {
  const most = upstream.concurrency_limit;
  const share = most ? upstream.in_flight / most : 0;
  return h(
    "div",
    {},
    h("span", { class: "name" }, t("upstream.load")),
    h("b", {}, most ? t("upstream.of", { now: count(upstream.in_flight), most: count(most) }) : count(upstream.in_flight)),
    most ? gauge(t("upstream.load"), share, [], share >= 0.9 ? "bad" : share >= 0.7 ? "warn" : "good") : null,
    spark(t("upstream.load"), past(`in flight ${upstream.name}`)),
  );
}

function speed(upstream) {
  const { p50, p99 } = upstream.latency_ms;
  return h(
    "div",
    {},
    h("span", { class: "name" }, t("upstream.speed")),
    h("b", {}, `${ms(p50)} · ${ms(p99)}`),
    spark(t("upstream.speed"), past(`p99 ${upstream.name}`)),
  );
}

function queue(upstream) {
  const waiting = Object.entries(upstream.queue ?? {});
  const shed = Object.entries(upstream.shed ?? {}).filter(([, value]) => value > 0);
  return h(
    "div",
    {},
    h("span", { class: "name" }, t("upstream.queue")),
    h("b", {}, count(waiting.reduce((sum, [, value]) => sum + value, 0)), " ", h("small", {}, ms(upstream.queue_delay_ms ?? 0))),
    h("span", { class: "quiet" }, waiting.filter(([, value]) => value > 0).map(([name, value]) => `${named("priority", name)} ${count(value)}`).join(" · ") || t("upstream.nobody")),
    shed.length ? h("span", { class: "quiet" }, t("upstream.shed", { names: shed.map(([name, value]) => `${named("priority", name)} ${count(value)}`).join(", ") })) : null,
  );
}

function servers(upstream) {
  const head = ["url", "state", "failures", "in_flight", "idle"].map((name) => t(`server.${name}`));
  return table(
    t("server.title", { name: upstream.name }),
    head,
    upstream.servers.map((server) => ({
      key: `server ${server.url}`,
      cells: [
        h("code", {}, server.url),
        server.ejected > 0
          ? mark(t("server.ejected", { count: server.ejected, time: lasting(server.seconds_left) }), "bad")
          : mark(t("server.well"), "good"),
        number(count(server.failures)),
        number(count(server.in_flight)),
        number(count(server.idle)),
      ],
    })),
  );
}
