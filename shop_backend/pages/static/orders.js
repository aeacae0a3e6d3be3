// A buyer's own orders: what was bought, for how much, and how it stands.
import { call, element, money } from "./api.js";

const root = document.querySelector("[data-orders-page]");
const STANDS = {
  pending: "Waits for your payment",
  paid: "Paid",
  delivered: "Delivered",
  expired: "Not paid in time",
  refunding: "Your money is on its way back",
  refunded: "Refunded",
};

if (root) look();

async function look() {
  const parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
  try {
    const { value } = await call("GET", "/api/orders");
    const orders = value.orders ?? [];
    parts.list.replaceChildren(...orders.map(row));
    parts.list.hidden = parts.hint.hidden = !orders.length;
    parts.notice.textContent = "This browser has ordered nothing yet.";
    parts.notice.hidden = orders.length > 0;
  } catch {
    parts.notice.textContent = "Your orders can't be looked up just now. Please try again in a moment.";
  }
}

function row(order) {
  const when = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(order.created_at));
  return element("li", {},
    element("a", { href: `/orders/${encodeURIComponent(order.order_id)}`, text: `${order.quantity} × ${order.name}` }),
    element("span", { class: "sum", text: money(order.amount_cents, order.currency) }),
    element("span", { class: "kind", text: `${STANDS[order.status] ?? order.status} · ${when}` }));
}
