// The last minutes, as this page has seen them: one sample a second for every curve.
const LENGTH = 180; // samples kept
const LEAST = 45; // samples that a curve is wide, however few there are yet
const STEADY = 4; // samples of which a rate is the mean: workers report in turns

const series = new Map();
const statuses = []; // the last few, the newest last

function push(name, value) {
  const values = series.get(name) ?? series.set(name, []).get(name);
  values.push(value);
  if (values.length > LENGTH) values.shift();
}

/** Take a status. Rates are told from its difference to one of a moment ago: sharper than the server's window. */
export function remember(status) {
  if (statuses.length && status.at - statuses.at(-1).at < 0.5) return; // asked for in between
  const before = statuses[0];
  if (before) {
    const grown = (now, was) => Math.max(0, (now - was) / (status.at - before.at));
    for (const [outcome, total] of Object.entries(status.requests)) {
      push(`outcome ${outcome}`, grown(total, before.requests[outcome] ?? 0));
    }
    for (const limit of status.limits) {
      const was = before.limits.find((one) => one.name === limit.name)?.checks ?? {};
      push(`denied ${limit.name}`, grown(limit.checks.denied ?? 0, was.denied ?? 0));
    }
  }
  push("p50", status.traffic.latency_ms.p50 ?? 0);
  push("p99", status.traffic.latency_ms.p99 ?? 0);
  push("pressure", status.pressure);
  push("step", status.step.step);
  for (const upstream of status.upstreams) {
    push(`in flight ${upstream.name}`, upstream.in_flight);
    push(`p99 ${upstream.name}`, upstream.latency_ms.p99 ?? 0);
  }
  statuses.push(status);
  if (statuses.length > STEADY) statuses.shift();
}

/** How many samples a curve is wide: it grows with what has been seen. */
export const width = () => Math.min(LENGTH, Math.max(LEAST, past("pressure").length));

/** The samples of a curve, the newest last. */
export const past = (name) => series.get(name) ?? [];

/** The newest sample of a curve. */
export const latest = (name) => past(name).at(-1) ?? 0;
