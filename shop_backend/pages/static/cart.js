// The cart page: lines as the shop prices them.
import { call, element, money, withSession } from "./api.js";

const root = document.querySelector("[data-cart-page]");
const parts = root ? Object.fromEntries([...root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node])) : {};

if (root) ask(() => call("GET", "/api/cart"));

let known = {}; // the cart as it was shown last

async function ask(work) {
  try {
    show((await work()).value);
  } catch (problem) {
    show(known); // what could not be changed is as it was
    tell(problem.status === 422 ? problem.message : "The cart can't be reached just now. Please try again in a moment.");
  }
}

function show(cart) {
  known = cart;
  const lines = cart.lines ?? [];
  parts.lines.replaceChildren(...lines.map(row));
  parts.total.textContent = (cart.totals ?? []).map((sum) => money(sum.amount_cents, sum.currency)).join(" + ");
  parts.table.hidden = parts.hint.hidden = !lines.length;
  tell(lines.length ? "" : "Nothing in it yet.");
}

function row(line) {
  const path = `/api/cart/${encodeURIComponent(line.sku)}`;
  const quantity = element("input", { type: "number", min: "1", max: line.per_user_cap, inputmode: "numeric", value: line.quantity, "aria-label": `Quantity of ${line.name}` });
  quantity.addEventListener("change", () => {
    if (quantity.validity.valid && quantity.value) {
      const wanted = Number(quantity.value);
      return ask(() => withSession(() => call("PUT", path, { quantity: wanted })));
    }
    const much = quantity.validity.rangeOverflow;
    quantity.value = line.quantity;
    tell(much ? `At most ${line.per_user_cap} of ${line.name} for one buyer.` : "");
  });
  const remove = element("button", { class: "button quiet small", type: "button", text: "Remove", "aria-label": `Remove ${line.name}` });
  remove.addEventListener("click", () => ask(() => withSession(() => call("DELETE", path))));
  return element("tr", {},
    element("td", {}, element("a", { href: `/p/${encodeURIComponent(line.sku)}?quantity=${line.quantity}`, text: line.name })),
    element("td", {}, element("div", { class: "quantity" }, quantity, remove)),
    element("td", { class: "sum", text: money(line.amount_cents, line.currency) }));
}

function tell(text) {
  parts.notice.textContent = text;
  parts.notice.hidden = !text;
}
