// Small curves, drawn by hand: lines and stacked areas that fill whatever width they are given.
import { svg } from "./dom.js";
import { width } from "./history.js";

const HEIGHT = 100;
const x = (number, length) => (width() - length + number).toFixed(1); // the newest is at the right
const y = (value, most) => (HEIGHT - (value / (most || 1)) * (HEIGHT - 4)).toFixed(2);

function frame(kind, label, ...inner) {
  return svg(
    "svg",
    { class: `curve ${kind}`, viewBox: `0 0 ${width() - 1} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    inner,
  );
}

/** A number that is a little more than the highest, and easy to read. */
export function ceiling(highest) {
  if (highest <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(highest));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((step) => step * unit).find((step) => step >= highest);
}

/**
 * Lines over the same time.
 *
 * @param lines pairs of a class and samples.
 * @param most what the top stands for; null: the highest sample.
 */
export function lines(label, pairs, most = null, kind = "") {
  const top = most ?? ceiling(Math.max(0, ...pairs.flatMap(([, values]) => values)));
  return frame(
    kind,
    label,
    pairs.map(([name, values]) =>
      svg("polyline", {
        class: name,
        points: values.map((value, number) => `${x(number, values.length)},${y(Math.min(value, top), top)}`).join(" "),
      }),
    ),
  );
}

/** One curve with its area. */
export function spark(label, values, most = null) {
  const top = most ?? ceiling(Math.max(0, ...values));
  const points = values.map((value, number) => `${x(number, values.length)},${y(Math.min(value, top), top)}`);
  if (!points.length) return frame("spark", label);
  const floor = `${x(values.length - 1, values.length)},${HEIGHT} ${x(0, values.length)},${HEIGHT}`;
  return frame("spark", label, svg("polygon", { points: `${points.join(" ")} ${floor}` }), svg("polyline", { points: points.join(" ") }));
}

/** Areas, each upon those before it: pairs of a class and samples. */
export function areas(label, pairs, most) {
  const length = Math.max(0, ...pairs.map(([, values]) => values.length));
  let below = Array(length).fill(0);
  const drawn = [];
  for (const [name, values] of pairs) {
    const early = length - values.length;
    const above = below.map((base, number) => base + (values[number - early] ?? 0));
    if (above.some((value, number) => value > below[number])) {
      const there = above.map((value, number) => `${x(number, length)},${y(value, most)}`);
      const back = below.map((value, number) => `${x(number, length)},${y(value, most)}`).reverse();
      drawn.push(svg("polygon", { class: name, points: [...there, ...back].join(" ") }));
    }
    below = above;
  }
  const grid = [0.25, 0.5, 0.75].map((share) =>
    svg("line", { class: "grid", x1: 0, x2: width() - 1, y1: y(share * most, most), y2: y(share * most, most) }),
  );
  return frame("areas", label, grid, drawn);
}

/** How full something is, 1 being full; marks stand where something begins. */
export function gauge(label, value, marks = [], kind = "") {
  return svg(
    "svg",
    { class: `gauge ${kind}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "track", width: 100, height: 6 }),
    svg("rect", { class: "level", width: Math.min(100, Math.max(0, value * 100)).toFixed(1), height: 6 }),
    marks.map((mark) => svg("rect", { class: "mark", x: mark * 100 - 0.3, width: 0.6, height: 6 })),
  );
}
