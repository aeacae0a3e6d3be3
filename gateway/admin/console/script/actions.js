// What the buttons do: ask where it matters, send it, tell what came of it.
import { ask } from "./ask.js";
import { Refused, call } from "./session.js";
import { toast } from "./toast.js";
import { ms, named, t } from "./words.js";
import { compared } from "../view/config.js";

let changed = () => {}; // told after each change
let current = null; // the last status

/** Take the newest status: what an action will change is told by it. */
export const know = (status) => {
  current = status;
};

function done(what, answer) {
  const whole = answer.applied >= answer.workers;
  const others = (answer.effect?.hosts ?? []).filter((host) => host.ms !== null).length;
  const effect = t("effect.told", { applied: answer.applied, workers: answer.workers, ms: ms(answer.ms) });
  const hosts = others ? ` ${t("effect.hosts", { count: others })}` : "";
  toast(`${what}: ${effect}${hosts}`, whole ? "good" : "warn");
  changed();
}

/** Send at once, since nothing is lost by it. */
async function send(path, body, what) {
  try {
    done(what, await call("PUT", path, body));
  } catch (error) {
    toast(error.message, "bad");
  }
}

const pathOf = (kind, name) => `/api/${kind}/${encodeURIComponent(name)}`;

const ACTIONS = {
  feature({ name, value, fallback }) {
    const path = pathOf("features", name);
    const what = `${name} → ${t(value)}`;
    if (value === "auto") return send(path, { state: "auto" }, what);
    ask(
      {
        title: t(`ask.feature.${value}`, { name }),
        says: t(value === "on" ? "ask.feature.on.says" : fallback === "true" ? "ask.feature.off.says" : "ask.feature.off.bare"),
        confirm: t(`ask.feature.${value}.do`),
        lasts: "10m",
      },
      async (terms) => done(what, await call("PUT", path, { state: value, ...terms })),
    );
  },
  step({ value, name }) {
    if (value === "auto") return send("/api/step", { step: "auto" }, t("ladder.to.auto"));
    const rung = current.step.steps.find((one) => String(one.step) === value);
    const title = t("ask.step", { step: value, name: named("step", name) });
    ask(
      {
        title,
        says: t("ask.step.says"),
        danger: rung?.only ? t("ask.step.danger", { priority: named("priority", rung.only) }) : null,
        confirm: t("ask.step.do"),
        lasts: "10m",
      },
      async (terms) => done(title, await call("PUT", "/api/step", { step: Number(value), ...terms })),
    );
  },
  breaker({ name, value }) {
    const path = pathOf("breakers", name);
    const what = `${name}: ${t(`breaker.force.${value}`)}`;
    if (value === "auto") return send(path, { state: "auto" }, what);
    ask(
      {
        title: t(`ask.breaker.${value}`, { name }),
        danger: t(`ask.breaker.${value}.danger`, { name }),
        confirm: t(`ask.breaker.${value}.do`),
        lasts: "1m",
      },
      async (terms) => done(what, await call("PUT", path, { state: value, ...terms })),
    );
  },
  limit({ name, rate, configured }) {
    ask(
      {
        title: t("ask.limit", { name }),
        says: t("ask.limit.says", { configured }),
        confirm: t("ask.limit.do"),
        lasts: "10m",
        rate,
        rates: [configured, "shadow", "off"],
      },
      async (terms) => {
        const answer = await call("PUT", pathOf("limits", name), terms);
        done(t("limits.now", { name, rate: answer.rate }), answer);
      },
    );
  },
  "limit-auto": ({ name }) => send(pathOf("limits", name), { rate: "auto" }, t("limits.now", { name, rate: t("auto") })),
  async unshut({ id, name }) {
    try {
      await call("DELETE", pathOf("shut-offs", id));
      toast(t("shut.done", { count: 1, name }));
    } catch (error) {
      toast(error.message, "bad");
    }
    changed();
  },
  "unshut-all": () =>
    ask({ title: t("ask.unshut"), danger: t("ask.unshut.danger"), confirm: t("shut.all") }, async () => {
      const { cleared } = await call("DELETE", "/api/shut-offs");
      toast(t("shut.done", { count: cleared, name: "" }));
      changed();
    }),
  "config-check": () => configuration("/api/config/check"),
  "config-reload": () => configuration("/api/config/reload"),
};

async function configuration(path) {
  try {
    const answer = await call("POST", path);
    const held = "applied" in answer;
    compared({ changes: answer.changes ?? [], held });
    if (held) done(t("config.version", { version: answer.version }), answer);
    else toast(t("config.good", { count: answer.changes.length }));
  } catch (error) {
    compared(null);
    const lines = error instanceof Refused && error.mistakes.length ? `\n${error.mistakes.join("\n")}` : "";
    toast(`${error.message}${lines}`, "bad");
  }
  changed();
}

/** Begin to listen to the buttons. */
export function listenToButtons(root, afterwards) {
  changed = afterwards;
  root.addEventListener("click", (event) => {
    const pressed = event.target.closest("button[data-act]");
    if (pressed && !pressed.disabled) ACTIONS[pressed.dataset.act]({ ...pressed.dataset });
  });
}
