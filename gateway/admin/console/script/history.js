// The last minutes: what the gateway remembers, then as this page sees them; a sample a second for every curve.
const LENGTH = 180; // samples kept
const LEAST = 45; // samples that a curve is wide, however few there are yet
const STEADY = 3; // seconds of which a rate is the mean: workers report in turns

const series = new Map();
let points = []; // the last few, the newest last

function push(name, value, times) {
  const values = series.get(name) ?? series.set(name, []).get(name);
  for (let more = times; more > 0; more -= 1) values.push(value);
  if (values.length > LENGTH) values.splice(0, values.length - LENGTH);
}

/** What of a status curves are drawn from, as the gateway remembers it. */
const pointOf = (status) => ({
  ...status,
  latency_ms: status.traffic.latency_ms,
  step: status.step.step,
  denied: Object.fromEntries(status.limits.map((limit) => [limit.name, limit.checks.denied ?? 0])),
  upstreams: Object.fromEntries(status.upstreams.map((upstream) => [upstream.name, upstream])),
});

/** Take a status. Rates are told from its difference to one of a moment ago: sharper than the server's window. */
export const remember = (status) => add(pointOf(status));

/** Begin with what the gateway remembers. */
export function recall(remembered) {
  series.clear();
  points = [];
  remembered.forEach(add);
}

function add(point) {
  const passed = points.length ? point.at - points.at(-1).at : 1;
  if (passed < 0.5) return; // asked for in between
  const times = Math.min(LENGTH, Math.max(1, Math.round(passed)));
  while (points.length > 1 && point.at - points[1].at >= STEADY) points.shift();
  const before = points[0];
  if (before) {
    const grown = (now, was = 0) => Math.max(0, (now - was) / (point.at - before.at));
    for (const [outcome, total] of Object.entries(point.requests)) push(`outcome ${outcome}`, grown(total, before.requests[outcome]), times);
    for (const [limit, total] of Object.entries(point.denied)) push(`denied ${limit}`, grown(total, before.denied[limit]), times);
  }
  push("p50", point.latency_ms.p50 ?? 0, times);
  push("p99", point.latency_ms.p99 ?? 0, times);
  push("pressure", point.pressure, times);
  push("step", point.step, times);
  for (const [name, upstream] of Object.entries(point.upstreams)) {
    push(`in flight ${name}`, upstream.in_flight, times);
    push(`p99 ${name}`, upstream.latency_ms.p99 ?? 0, times);
  }
  points.push(point);
}

/** How many samples a curve is wide: it grows with what has been seen. */
export const width = () => Math.min(LENGTH, Math.max(LEAST, past("pressure").length));

/** The samples of a curve, the newest last. */
export const past = (name) => series.get(name) ?? [];

/** The newest sample of a curve. */
export const latest = (name) => past(name).at(-1) ?? 0;
