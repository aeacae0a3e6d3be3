// The status once a second: by server-sent events, else by asking. Whoever is not heard is lost, and is asked on.
import { call } from "./session.js";

const LOOK = 1000; // ms between two looks at the clock
const SILENCE = 4000; // ms without an event after which we ask ourselves; a worker that hangs delays each by 3 s
const ASK = 2000; // ms between two questions
const PATIENCE = 4000; // ms for an answer
const LOST = 6000; // ms without news
const DEAF = 15000; // ms without an event after which we join anew: what is between us may have forgotten the stream

/**
 * Listen until `stop()` is called.
 *
 * @param onStatus told each status.
 * @param onLink told how we are connected: "live", "asking" or "lost", and when the last news came (ms since 1970).
 * @param onGone told when the gateway says that the session has ended.
 */
export function listen(onStatus, onLink, onGone) {
  const now = () => performance.now();
  let stopped = false;
  let source = null;
  let joined = 0;
  let told = now(); // by an event
  let news = now(); // by an event or an answer
  let since = Date.now(); // the same on the wall
  let asked = -Infinity;
  let asking = false;
  let lost = false;
  let empty = true; // nothing was told yet

  function take(status, link) {
    lost = empty = false;
    news = now();
    since = Date.now();
    onLink(link, since);
    onStatus(status);
  }

  function join() {
    source?.close();
    joined = now();
    const mine = (source = new EventSource("/api/events"));
    mine.addEventListener("status", (event) => {
      told = now();
      take(JSON.parse(event.data), "live");
    });
    mine.addEventListener("bye", gone);
    // The browser joins again by itself unless it was refused; whether anybody is there, an answer tells.
    mine.addEventListener("error", () => mine === source && ask());
  }

  function gone() {
    if (stopped) return;
    stop();
    onGone();
  }

  function lose() {
    lost = true;
    onLink("lost", since);
  }

  async function ask() {
    if (stopped || asking || now() - asked < ASK) return;
    asking = true;
    asked = now();
    const status = await call("GET", "/api/status", undefined, PATIENCE).catch((error) => error);
    asking = false;
    if (stopped) return;
    if (status.status === 401) gone();
    else if (!(status instanceof Error)) (lost || empty || now() - told >= SILENCE) && take(status, "asking");
    else if (!status.late && told < asked) lose(); // there is nobody at all
  }

  function look() {
    if (stopped) return;
    if (lost || now() - news >= LOST) lose();
    if (lost || now() - told >= SILENCE) ask();
    const deaf = now() - Math.max(told, joined) >= DEAF;
    if (deaf || (source.readyState === EventSource.CLOSED && now() - joined >= ASK)) join();
  }

  function stop() {
    stopped = true;
    source?.close();
    clearInterval(looking);
    document.removeEventListener("visibilitychange", look);
  }

  const looking = setInterval(look, LOOK);
  document.addEventListener("visibilitychange", look); // timers of a page that nobody sees are late
  join();
  return stop;
}
