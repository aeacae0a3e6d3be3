// One question before a change: for how long, and why. What refuses it is said in the same place.
import { fill, h } from "./dom.js";
import { t } from "./words.js";

const TIMES = ["1m", "10m", "1h", "6h", ""];
const dialog = document.getElementById("ask");
const form = dialog.querySelector("form");
let doing = null;

/**
 * Ask, and do it when the answer is yes.
 *
 * @param what `title`, `says` (what will come of it), `confirm` (the button), and if wanted `danger` (a warning),
 *   `lasts` (ask for how long; the time that is chosen first), `rate` (ask for a rate; the one that holds).
 * @param act given {for, reason, rate}; when it rejects, its message is shown and the question stays.
 */
export function ask(what, act) {
  doing = act;
  fill(form, [
    h("h2", { id: "ask-title" }, what.title),
    what.says ? h("p", {}, what.says) : null,
    what.danger ? h("p", { class: "danger" }, what.danger) : null,
    what.rate !== undefined ? rateField(what) : null,
    what.lasts !== undefined ? times(what.lasts) : null,
    what.lasts !== undefined
      ? h("label", { class: "field" }, t("ask.reason"), h("input", { name: "reason", maxlength: 500, autocomplete: "off", placeholder: t("ask.why") }))
      : null,
    h("p", { class: "refused", role: "alert" }),
    h(
      "p",
      { class: "answers" },
      h("button", { type: "button", "data-close": true }, t("ask.no")),
      h("button", { type: "submit", class: what.danger ? "primary dangerous" : "primary" }, what.confirm),
    ),
  ]);
  form.reset();
  dialog.returnValue = "";
  dialog.showModal();
  (form.elements.rate ?? form.elements.reason ?? form.querySelector("[type=submit]")).focus();
  form.elements.rate?.select();
}

function rateField({ rate, rates }) {
  return h(
    "label",
    { class: "field" },
    t("ask.rate"),
    h("input", { name: "rate", required: true, maxlength: 100, value: rate, autocomplete: "off", list: "rates", spellcheck: "false" }),
    h("datalist", { id: "rates" }, rates.map((one) => h("option", { value: one }))),
  );
}

const times = (chosen) =>
  h(
    "fieldset",
    { class: "times" },
    h("legend", {}, t("ask.for")),
    TIMES.map((time) =>
      h("label", {}, h("input", { type: "radio", name: "for", value: time, checked: time === chosen }), h("span", {}, t(`ask.time.${time || "open"}`))),
    ),
  );

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = new FormData(form);
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    await doing(Object.fromEntries([...said].filter(([, value]) => value !== "")));
    dialog.close();
  } catch (error) {
    form.querySelector(".refused").textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
form.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) dialog.close();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});
