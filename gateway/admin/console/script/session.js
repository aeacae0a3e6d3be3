// Who is at the keyboard, and every call to the admin API in their name.
import { refusal, t } from "./words.js";

let csrf = null;

/** A refusal, in the reader's language. */
export class Refused extends Error {
  constructor(status, said) {
    super(refusal(said.type ?? "", said.detail ?? said.title ?? String(status)));
    this.status = status;
    this.mistakes = said.mistakes ?? [];
  }
}

/** One call; `body` is sent as JSON. Rejects with Refused, or with an Error when nobody answers. */
export async function call(method, path, body) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (csrf !== null && method !== "GET") headers["x-csrf-token"] = csrf;
  const sent = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
  const answer = await fetch(path, sent).catch(() => Promise.reject(new Error(t("refused.nobody"))));
  const said = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, said);
  return said;
}

function opened(page) {
  csrf = page.csrf;
  return page;
}

/** Log in with a token; it is not kept, the browser holds a cookie that no script can read. */
export const logIn = async (token) => opened(await call("POST", "/api/session", { token }));

/** Who is logged in. */
export const whoIs = async () => opened(await call("GET", "/api/session"));

/** End the session. */
export async function logOut() {
  await call("DELETE", "/api/session");
  csrf = null;
}
