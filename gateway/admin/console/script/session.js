// Who is at the keyboard, and every call to the admin API in their name.
let csrf = null;

/** A refusal, in the API's own words. */
export class Refused extends Error {
  constructor(status, said) {
    super(said.detail ?? said.title ?? String(status));
    this.status = status;
    this.mistakes = said.mistakes ?? [];
  }
}

/** One call; `body` is sent as JSON. Rejects with Refused, or with TypeError when nobody answers. */
export async function call(method, path, body) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (csrf !== null && method !== "GET") headers["x-csrf-token"] = csrf;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
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
