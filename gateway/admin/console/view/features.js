// What can be switched off.
import { choices, mark, pinned, table } from "../script/controls.js";
import { h } from "../script/dom.js";
import { t } from "../script/words.js";

/** Each feature with its switch. */
export function features(status, may) {
  const head = ["name", "now", "switch", "pinned"].map((name) => t(`features.${name}`));
  return table(
    t("features.title"),
    head,
    status.features.map((feature) => ({
      key: `feature ${feature.name}`,
      cells: [
        h("span", { title: feature.routes?.join("\n") }, feature.name),
        feature.on
          ? mark(t("features.on"), "good")
          : mark(t(feature.fallback ? "features.fallback" : "features.off"), "warn"),
        choices(
          t("features.of", { name: feature.name }),
          feature.state,
          [["on", t("on")], ["off", t("off")], ["auto", t("auto")]],
          "feature",
          { name: feature.name, fallback: feature.fallback },
          may,
        ),
        pinned(feature.pin) ?? h("span", { class: "quiet" }, t(feature.state === "auto" ? "features.free" : "features.configured")),
      ],
    })),
  );
}
