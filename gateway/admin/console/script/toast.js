// What a change came to, told for a while; assistive technology hears it too.
import { h } from "./dom.js";

const LASTS = 9000; // ms
const place = document.getElementById("toasts");

/** Tell; kind is good, warn or bad. */
export function toast(text, kind = "good") {
  const told = h("p", { class: kind }, text);
  place.prepend(told);
  setTimeout(() => told.remove(), LASTS);
  while (place.childElementCount > 3) place.lastElementChild.remove();
}
