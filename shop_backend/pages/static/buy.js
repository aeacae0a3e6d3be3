// The buy form: one click, one order, and a kind word when it can't be.
import { Problem, call, element, forget, recall, remember, unique, withSession } from "./api.js";
import { left } from "./countdown.js";

const form = document.querySelector("form[data-buy]");

if (form) {
  const button = form.querySelector("button[type=submit]");
  const notice = form.querySelector("[data-notice]");
  const label = button.textContent;
  let busy = false;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return; // a double click
    const email = form.elements.email.value.trim();
    const order = { sku: form.dataset.buy, quantity: Number(form.elements.quantity.value), email };
    const phone = form.elements.phone.value.trim();
    if (phone) order.phone = phone;
    busy = true;
    button.disabled = true;
    button.textContent = "One moment…";
    say("");
    try {
      const { value } = await withSession(
        () => call("POST", "/api/orders", order, { "Idempotency-Key": keyFor(order) }), email);
      forget(sessionStorage, slot(order));
      remember(sessionStorage, `token:${value.order_id}`, value.token);
      location.assign(`/orders/${encodeURIComponent(value.order_id)}`);
    } catch (error) {
      refused(error instanceof Problem ? error : new Problem(0), order);
    }
  });

  const wanted = Number(new URLSearchParams(location.search).get("quantity"));
  if (Number.isInteger(wanted) && wanted > 0) form.elements.quantity.value = wanted; // from the cart

  form.querySelector("[data-cart]").addEventListener("click", async () => {
    if (!form.elements.quantity.reportValidity()) return;
    const path = `/api/cart/${encodeURIComponent(form.dataset.buy)}`;
    try {
      await withSession(() => call("PUT", path, { quantity: Number(form.elements.quantity.value) }));
      say("It is in your cart.");
    } catch (problem) {
      say(problem.status === 422 ? problem.message : "The cart can't be reached just now. Please try again in a moment.");
    }
  });

  // Back from the order page: the browser may show this page as it was left.
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });

  // The doors open while the page is looked at.
  document.addEventListener("elapsed", (event) => {
    if (event.target.matches("[data-opens]")) {
      form.querySelector("fieldset").disabled = false;
      event.target.closest("p").hidden = true;
    }
  });

  function refused(problem, order) {
    const { body } = problem;
    switch (problem.status) {
      case 410:
        if (body.left > 0) {
          forget(sessionStorage, slot(order));
          open();
          return say(`Only ${body.left} left: please order fewer.`);
        }
        forget(sessionStorage, slot(order));
        button.textContent = "Sold out";
        return say("Sold out: somebody was a little faster. Unpaid cards come back after some minutes, so it may be worth another look.");
      case 409:
        forget(sessionStorage, slot(order));
        open();
        return capped(problem, order.sku);
      case 403:
        forget(sessionStorage, slot(order));
        open();
        if (body.starts_at) return say(`This sale opens on ${new Date(body.starts_at).toLocaleString(document.documentElement.lang)}.`);
        return say(problem.message || "This sale is not open now.");
      case 429:
        say("Many are buying right now, and this was one try too many.");
        return pause(problem.retryAfter || 2);
      case 503:
        // Full is what the gate says; all else is a part of the shop that is away.
        say(`${/#temporary-reduced-capacity$/.test(body.type) ? "The shop is very full." : "The shop can't take orders just now."}`
          + " Press again when the time is up: it will not be ordered twice.");
        return pause(problem.retryAfter || 3);
      case 0: case 500: case 502: case 504:
        // The order may exist; the same key asks for the same order.
        say("No answer came. Press again: it will not be ordered twice.");
        return pause(problem.retryAfter || 1);
      default:
        forget(sessionStorage, slot(order));
        open();
        return say(mistakes(body) || problem.message || "This can't be ordered. Please look at what you entered.");
    }
  }

  // Enough ordered already: say so, and lead to what is not paid yet.
  async function capped({ body, message }, sku) {
    const text = {
      "urn:tidegate:cap-reached": body.left > 0
        ? `You may have ${body.left} more of this: please order fewer.`
        : "You have ordered as many of these as one buyer may have.",
      "urn:tidegate:too-many-open-orders": "You have too many unpaid orders. Pay one of them, or wait until they expire.",
    }[body.type];
    say(text ?? (message || "You have as many of these as one buyer may have."));
    if (!text) return;
    const { value } = await call("GET", "/api/orders").catch(() => ({ value: {} }));
    if (busy) return; // pressed again meanwhile: the notice is about that
    const unpaid = (value.orders ?? []).filter((own) => own.status === "pending");
    const mine = unpaid.find((own) => own.sku === sku) ?? (body.type === "urn:tidegate:too-many-open-orders" ? unpaid[0] : undefined);
    notice.append(" ", mine
      ? element("a", { href: `/orders/${encodeURIComponent(mine.order_id)}`, text: "Pay the one that waits for you" })
      : element("a", { href: "/orders", text: "See your orders" }));
  }

  // What is wrong, by the names that stand at the fields.
  function mistakes(body) {
    const errors = Array.isArray(body.errors) ? body.errors : [];
    const fields = errors.map(({ field }) => form.elements.namedItem(field));
    if (!errors.length || !fields.every((field) => field?.labels?.length)) return "";
    fields[0].focus();
    return errors.map(({ error }, index) => `${fields[index].labels[0].firstChild.textContent.trim()} ${error}.`).join(" ");
  }

  function pause(seconds) {
    const until = Date.now() + seconds * 1000;
    const tick = () => {
      const rest = (until - Date.now()) / 1000;
      if (rest <= 0) {
        clearInterval(timer);
        open();
      } else {
        button.textContent = `Again in ${left(rest).replace(/^00:/, "")}`;
      }
    };
    const timer = setInterval(tick, 250);
    tick();
  }

  function open() {
    busy = false;
    button.disabled = false;
    button.textContent = label;
  }

  function say(text) {
    notice.textContent = text;
    notice.hidden = !text;
  }
}

function slot(order) {
  return `buy:${JSON.stringify(order)}`;
}

function keyFor(order) {
  const known = recall(sessionStorage, slot(order));
  if (known) return known;
  const key = unique();
  remember(sessionStorage, slot(order), key);
  return key;
}
