// The configuration file: whether it holds, what an edit would change, and what is wrong with it.
import { button, table } from "../script/controls.js";
import { h } from "../script/dom.js";
import { t, when } from "../script/words.js";

let difference = null; // of the file as it stands, when somebody asked

/** Show what a check came to; null takes it away. */
export const compared = (found) => {
  difference = found;
};

/** The state of the file, and its mistakes line by line. */
export function config(status, may) {
  const { file, version, since, mistakes, restart } = status.config;
  return [
    h("p", { class: "note" }, t("config.holds", { version, time: when(since * 1000) }), " ", h("code", {}, file)),
    mistakes.length
      ? h(
          "div",
          { class: "mistakes", role: "alert" },
          h("p", {}, t("config.refused")),
          h("ol", {}, mistakes.map((line) => h("li", {}, h("code", {}, line.replace(`${file}:`, t("config.line") + " "))))),
        )
      : null,
    restart.length ? differences("pending", ["before", "later"], restart.map((one) => ({ ...one, restart: false }))) : null,
    h(
      "p",
      { class: "choices" },
      button(t("config.check"), "config-check", {}, { disabled: !may }),
      button(t("config.reload"), "config-reload", {}, { disabled: !may }),
    ),
    difference ? asked(difference) : null,
  ];
}

function asked({ changes, held }) {
  if (!changes.length) return h("p", { class: "none" }, t("config.same"));
  return held ? differences("changed", ["was", "before"], changes) : differences("would", ["before", "after"], changes);
}

/** What is said of them, and each key with two values, under the names of these columns. */
function differences(said, columns, changes) {
  const head = ["key", ...columns].map((name) => t(`config.${name}`));
  return [
    h("p", { class: "note" }, t(`config.${said}`)),
    table(t("config.title"), head, changes.map((one) => ({
      key: one.path,
      cells: [
        [h("code", {}, one.path), one.restart ? h("small", { class: "quiet" }, t("config.restart")) : null],
        h("code", { class: "gone" }, shown(one.before)),
        h("code", { class: "come" }, shown(one.after)),
      ],
    }))),
  ];
}

const shown = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));
