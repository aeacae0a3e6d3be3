// The same few things in every section: choices, marks, pins, empty tables.
import { h } from "./dom.js";
import { lasting, t } from "./words.js";

/** A word with a colour: good, warn, bad or quiet. */
export const mark = (text, kind) => h("span", { class: `mark ${kind}` }, text);

/** A button that `actions.js` understands. */
export function button(text, act, data = {}, more = {}) {
  const attributes = { type: "button", "data-act": act, ...more };
  for (const [name, value] of Object.entries(data)) attributes[`data-${name}`] = String(value);
  return h("button", attributes, text);
}

/**
 * Buttons of which one holds.
 *
 * @param label whom they are for.
 * @param now the value that holds.
 * @param choices pairs of a value and a text.
 */
export function choices(label, now, pairs, act, data, may) {
  return h(
    "span",
    { class: "choices", role: "group", "aria-label": label },
    pairs.map(([value, text]) =>
      button(text, act, { ...data, value }, { "aria-pressed": String(value === now), disabled: !may }),
    ),
  );
}

/** Who holds a switch, until when, and why; nothing when nobody does. */
export function pinned(pin) {
  if (!pin) return null;
  const left = pin.seconds_left === null ? t("pin.open") : t("pin.left", { time: lasting(pin.seconds_left) });
  return h(
    "span",
    { class: "pin", title: pin.by },
    h("span", { class: "left" }, left),
    pin.reason ? h("q", {}, pin.reason) : null,
    h("span", { class: "by" }, pin.by.split(" at ")[0]),
  );
}

/** A table that becomes cards on a phone: each cell repeats its column's name. */
export function table(caption, head, rows) {
  if (!rows.length) return h("p", { class: "none" }, t("none"));
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, head.map((name, at) => h("th", { scope: "col", class: columnClass(rows, at) }, name)))),
    h(
      "tbody",
      {},
      rows.map(({ key, cells }) =>
        h("tr", { "data-key": key }, cells.map((cell, at) => one(cell, head[at], at))),
      ),
    ),
  );
}

const columnClass = (rows, at) => (rows[0].cells[at]?.number !== undefined ? "number" : null);

function one(cell, name, at) {
  const number = cell?.number !== undefined;
  const inner = number ? cell.number : cell;
  return at === 0
    ? h("th", { scope: "row" }, inner)
    : h("td", { class: number ? "number" : null, "data-label": name }, inner);
}

/** A cell that is read as a number. */
export const number = (text) => ({ number: text });
