// Pressure, its signals, and the rungs that it climbs.
import { button, pinned } from "../script/controls.js";
import { gauge, spark } from "../script/curve.js";
import { h } from "../script/dom.js";
import { past } from "../script/history.js";
import { named, percent, t } from "../script/words.js";

/** How full the gateway is, and why. */
export function pressure(status) {
  const signals = Object.entries(status.signals).sort((a, b) => b[1] - a[1]);
  return [
    h(
      "div",
      { class: "figures" },
      h("div", { class: `figure ${kindOf(status.pressure)}` }, h("span", { class: "name" }, t("pressure.now")), h("span", { class: "value" }, percent(status.pressure))),
      h("div", { class: "figure wide" }, spark(t("pressure.title"), past("pressure"), 1)),
    ),
    h(
      "ul",
      { class: "signals" },
      signals.map(([name, value]) =>
        h("li", { "data-key": name }, h("span", {}, named("signal", name)), gauge(named("signal", name), value, [], kindOf(value)), h("b", {}, percent(value))),
      ),
    ),
  ];
}

const kindOf = (value) => (value >= 0.8 ? "bad" : value >= 0.5 ? "warn" : "good");

/** The rungs; the one that holds is marked, each is a button. */
export function ladder(status, may) {
  const { step, state, steps, climbed, pin } = status.step;
  return [
    h(
      "ol",
      { class: "rungs" },
      steps.map((rung) =>
        h(
          "li",
          { "data-key": `rung ${rung.step}`, class: rung.step === step ? "here" : rung.step < step ? "below" : null },
          button(
            [h("b", {}, `${rung.step} · ${named("step", rung.name)}`), h("small", {}, gives(rung))],
            "step",
            { value: rung.step, name: rung.name },
            { "aria-pressed": String(state === String(rung.step)), "aria-current": rung.step === step ? "step" : null, disabled: !may },
          ),
        ),
      ),
      h(
        "li",
        { "data-key": "auto", class: "auto" },
        button(
          [h("b", {}, t("auto")), h("small", {}, t("ladder.auto", { step: climbed }))],
          "step",
          { value: "auto" },
          { "aria-pressed": String(state === "auto"), disabled: !may },
        ),
      ),
    ),
    pin ? h("p", { class: "note" }, t("ladder.pinned"), " ", pinned(pin)) : null,
  ];
}

function gives(rung) {
  if (rung.only) return t("ladder.only", { priority: named("priority", rung.only) });
  return rung.off.length ? t("ladder.off", { names: rung.off.join(", ") }) : t("ladder.all");
}
