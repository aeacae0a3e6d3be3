// A block that may be missing: switched off, empty or broken, the page is whole without it.
import { call, element, money } from "./api.js";

const block = document.querySelector("[data-recommendations]");

if (block) {
  const images = JSON.parse(block.dataset.images);
  const sku = encodeURIComponent(block.dataset.recommendations);
  call("GET", `/api/products/${sku}/recommendations`)
    .then(({ value, degraded }) => {
      const items = Array.isArray(value.items) ? value.items : [];
      if (degraded || !items.length) return;
      block.querySelector("ul").replaceChildren(...items.map((item) => card(item, images[item.image])));
      block.hidden = false;
    })
    .catch(() => {}); // nobody came for this
}

function card(item, picture) {
  const link = element("a", { href: `/p/${encodeURIComponent(item.sku)}`, text: item.name });
  return element("li", { class: "card" },
    ...(picture ? [element("img", { src: picture, alt: "", width: "640", height: "400", loading: "lazy" })] : []),
    element("div", { class: "text" },
      element("h3", {}, link),
      element("p", { class: "foot-line" }, element("span", { class: "price", text: money(item.price_cents, item.currency) }))));
}
