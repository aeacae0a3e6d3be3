// Who is at the keyboard, and every call to the admin API in their name.
import { refusal, t } from "./words.js";

const PATIENCE = 20000; // ms; a change waits for every worker
const SOON = 4000; // ms for what waits for nothing
let csrf = null;

/** A refusal, in the reader's language. */
export class Refused extends Error {
  constructor(status, said) {
    super(refusal(said.type ?? "", said.detail ?? said.title ?? String(status)));
    this.status = status;
    this.mistakes = said.mistakes ?? [];
  }
}

/**
 * One call; `body` is sent as JSON. Rejects with Refused, or with an Error when nobody answers: `late` after `patience`
 * (ms), when what was asked for may still be done.
 */
export async function call(method, path, body, patience = PATIENCE) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (csrf !== null && method !== "GET") headers["x-csrf-token"] = csrf;
  const signal = AbortSignal.timeout(patience);
  try {
    const answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
    const said = answer.status === 204 ? {} : await answer.json().catch((error) => (signal.aborted ? Promise.reject(error) : {}));
    if (!answer.ok) throw new Refused(answer.status, said);
    return said;
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw Object.assign(new Error(t(signal.aborted ? "refused.late" : "refused.nobody")), { late: signal.aborted });
  }
}

function opened(page) {
  csrf = page.csrf;
  return page;
}

/** Log in with a token; it is not kept, the browser holds a cookie that no script can read. */
export const logIn = async (token) => opened(await call("POST", "/api/session", { token }));

/** Who is logged in. */
export const whoIs = async () => opened(await call("GET", "/api/session", undefined, SOON));

/** End the session. */
export async function logOut() {
  await call("DELETE", "/api/session");
  csrf = null;
}
