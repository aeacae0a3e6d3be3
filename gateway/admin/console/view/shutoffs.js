// What upstreams have shut off ("sold out"), and letting it through again.
import { call } from "../script/session.js";
import { button, number, table } from "../script/controls.js";
import { h } from "../script/dom.js";
import { lasting, t } from "../script/words.js";

const MOST = 20;
let held = [];
let counted = 0;

/** Fetch the list while there is something on it. */
export async function fetchedShut(status) {
  if (!status.shut_offs && !counted) return false;
  counted = status.shut_offs;
  held = counted ? (await call("GET", "/api/shut-offs")).shut_offs : [];
  return true;
}

/** The newest first. */
export function shutOffs(status, may) {
  if (!held.length) return h("p", { class: "none" }, t("shut.none"));
  const head = ["what", "route", "status", "left", "end"].map((name) => t(`shut.${name}`));
  return [
    table(t("shut.title"), head, held.slice(-MOST).reverse().map((one) => ({
      key: one.id,
      cells: [
        [one.parameter, " = ", h("b", {}, one.value)],
        h("code", {}, one.route),
        number(String(one.status)),
        number(lasting(one.seconds_left)),
        button(t("shut.through"), "unshut", { id: one.id, name: one.value }, { disabled: !may }),
      ],
    }))),
    h("p", { class: "choices" }, button(t("shut.all"), "unshut-all", {}, { disabled: !may })),
  ];
}
