// Calls to the shop. Every refusal becomes a Problem that says what to tell the buyer and when to come back.

export class Problem extends Error {
  /**
   * @param {number} status 0 when no answer came.
   * @param {object} body as the answer has it (RFC 9457).
   * @param {number} retryAfter seconds; 0 when unknown.
   */
  constructor(status, body = {}, retryAfter = 0) {
    super(body.detail || body.title || "");
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/** Ask the shop; resolves to the parsed answer, rejects with a Problem. */
export async function call(method, path, body, headers = {}) {
  const options = { method, headers: { accept: "application/json", ...headers }, credentials: "same-origin" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem(0);
  }
  const value = await answer.json().catch(() => ({}));
  if (answer.ok) {
    return { value, degraded: answer.headers.get("tidegate-degraded") };
  }
  const after = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
  throw new Problem(answer.status, value ?? {}, Number.isFinite(after) && after > 0 ? after : 0);
}

/** Run a call that needs a session; start one when the shop knows none, then run it again. */
export async function withSession(work, email) {
  const start = () => call("POST", "/api/session", email ? { email } : {});
  if (!recall(localStorage, "session")) await start(); // saves the first refusal
  try {
    const done = await work();
    remember(localStorage, "session", "1");
    return done;
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    await start();
    return work();
  }
}

// Storage may be switched off in this browser; the shop works without, only less comfortably.
export function remember(storage, key, value) {
  try { storage.setItem(key, value); } catch { /* nothing is kept */ }
}

export function recall(storage, key) {
  try { return storage.getItem(key); } catch { return null; }
}

export function forget(storage, key) {
  try { storage.removeItem(key); } catch { /* nothing was kept */ }
}

/** Cents as the reader writes money. */
export function money(cents, currency) {
  return new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency }).format(cents / 100);
}

/** A random name that nobody else makes; also where crypto.randomUUID is missing (plain http). */
export function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An element with text, classes and attributes; text is never read as HTML. */
export function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
