// The order page: ask how it stands until it stands still.
import { Problem, call, element, money, recall } from "./api.js";
import { start } from "./countdown.js";

const root = document.querySelector("[data-order]");
const parts = root ? Object.fromEntries([...root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node])) : {};
const FINAL = new Set(["delivered", "expired", "refunded"]);
const WORDS = {
  reserved: ["Reserved for you", "Your order is being written down. The pay button appears in a moment."],
  pending: ["Ready to pay", "Your cards are put aside until the time is up."],
  paid: ["Paid", "Thank you. Your keys are being fetched."],
  delivered: ["Here you are", "Keep your keys to yourself: whoever has one can redeem it."],
  expired: ["Time is up", "It was not paid in time, so the cards went back on the shelf. Nothing was taken."],
  refunding: ["Your money is on its way back", "The payment came after the last card was gone. All of it is being returned."],
  refunded: ["Refunded", "The payment came after the last card was gone. All of it was returned."],
};
const STEP = { reserved: 0, pending: 1, paid: 2, delivered: 3 };

if (root) follow();

async function follow() {
  const id = root.dataset.order;
  const token = new URLSearchParams(location.search).get("token") ?? recall(sessionStorage, `token:${id}`);
  const path = `/api/orders/${encodeURIComponent(id)}${token ? `?token=${encodeURIComponent(token)}` : ""}`;
  let pause = 500; // milliseconds; grows while nothing changes
  let shown = "";
  for (;;) {
    try {
      const { value } = await call("GET", path);
      const state = JSON.stringify(value);
      if (state !== shown) {
        shown = state;
        pause = 500;
        show(value);
      }
      if (FINAL.has(value.status)) return;
      pause = Math.min(pause * 1.3, 5000);
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem(0);
      if ([401, 403, 404, 422].includes(problem.status)) return missing();
      pause = Math.max(problem.retryAfter * 1000, Math.min(pause * 2, 10000));
      tell("Your order can't be looked up just now; this page asks again by itself.");
    }
    await wait(pause + Math.random() * 250);
  }
}

function wait(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    // Back from the till in another tab: look at once.
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) { clearTimeout(timer); resolve(); }
    }, { once: true });
  });
}

function show(order) {
  const [title, text] = WORDS[order.status] ?? [order.status, ""];
  parts.title.textContent = title;
  document.title = `${title} · Keyharbour`;
  parts.text.textContent = text;
  root.dataset.status = order.status;
  const sum = order.amount_cents && order.currency ? `, ${money(order.amount_cents, order.currency)}` : "";
  parts.bought.textContent = `${order.quantity} × ${order.name}${sum}`;
  parts.bought.hidden = false;
  tell("");

  const step = STEP[order.status] ?? -1;
  parts.steps.hidden = step < 0;
  [...parts.steps.children].forEach((item, index) => {
    item.className = index < step ? "done" : index === step ? "now" : "";
    if (index === step) item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
  });

  const payable = order.status === "pending" && order.pay_url;
  parts.pay.hidden = !payable;
  if (payable) {
    parts.link.href = order.pay_url;
    if (order.amount_cents && order.currency) parts.link.textContent = `Pay ${money(order.amount_cents, order.currency)}`;
    parts.until.hidden = !order.expires_at;
    if (order.expires_at && parts.clock.dataset.countdown !== order.expires_at) {
      parts.clock.dataset.countdown = order.expires_at;
      start(parts.until);
    }
  }
  const cards = Array.isArray(order.cards) ? order.cards : [];
  parts.keys.hidden = !cards.length;
  parts.keys.replaceChildren(...cards.map(key));
}

function key(card) {
  const secret = typeof card === "string" ? card : card.secret;
  const copy = element("button", { class: "button quiet small", type: "button", text: "Copy", "aria-label": `Copy key ${secret}` });
  const text = element("code", { "data-key": "", text: secret });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(secret);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // no clipboard here: marked, ready for the keyboard
      copy.textContent = "Marked";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
  return element("li", {}, text, copy);
}

function missing() {
  parts.title.textContent = "No such order here";
  parts.text.textContent = "This browser has no order of this number. Open it where you bought it, or with the link you were sent.";
  parts.steps.hidden = true;
  parts.pay.hidden = true;
  parts.bought.hidden = true;
  tell("");
}

function tell(text) {
  parts.notice.textContent = text;
  parts.notice.hidden = !text;
}
