// The status once a second: by server-sent events, else by asking.
import { call } from "./session.js";

const SILENCE = 5000; // ms without an event after which we ask ourselves
const ASK = 2000; // ms between two questions

/**
 * Listen until `stop()` is called.
 *
 * @param onStatus told each status.
 * @param onLink told how we are connected: "live", "asking" or "lost".
 * @param onGone told when the session has ended.
 */
export function listen(onStatus, onLink, onGone) {
  let heard = 0;
  let stopped = false;
  let source = null;
  let serial = 0;

  function join() {
    source = new EventSource("/api/events");
    source.addEventListener("status", (event) => {
      heard = performance.now();
      onLink("live");
      onStatus(JSON.parse(event.data));
    });
    source.addEventListener("bye", gone);
    source.addEventListener("error", () => {
      // The browser tries again by itself unless it was refused.
      if (source.readyState === EventSource.CLOSED && !stopped) setTimeout(() => !stopped && join(), ASK);
    });
  }

  function gone() {
    stop();
    onGone();
  }

  async function ask() {
    if (stopped || performance.now() - heard < SILENCE) return;
    const mine = ++serial;
    try {
      const status = await call("GET", "/api/status");
      if (stopped || mine !== serial) return;
      onLink("asking");
      onStatus(status);
    } catch (error) {
      if (stopped) return;
      if (error.status === 401) return gone();
      onLink("lost");
    }
  }

  function stop() {
    stopped = true;
    source?.close();
    clearInterval(asking);
  }

  heard = performance.now() - SILENCE + 1500; // the first event may take a moment
  const asking = setInterval(ask, ASK);
  join();
  return stop;
}
