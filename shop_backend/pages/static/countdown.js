// Elements with data-countdown="RFC 3339" show the time left; at zero they fire "elapsed".

const unit = (value) => String(value).padStart(2, "0");

export function left(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const days = Math.floor(whole / 86400);
  const clock = `${unit(Math.floor((whole % 86400) / 3600))}:${unit(Math.floor((whole % 3600) / 60))}:${unit(whole % 60)}`;
  if (days > 400) return `${Math.floor(days / 365)} years`;
  return days > 0 ? `${days} d ${clock}` : clock;
}

export function start(root = document) {
  const shown = [...root.querySelectorAll("[data-countdown]")]
    .map((node) => ({ node, at: Date.parse(node.dataset.countdown) / 1000 }))
    .filter(({ at }) => Number.isFinite(at));
  if (!shown.length) return;
  const tick = () => {
    const now = Date.now() / 1000;
    for (const entry of shown) {
      entry.node.textContent = left(entry.at - now);
      if (entry.at <= now && !entry.elapsed) {
        entry.elapsed = true;
        entry.node.dispatchEvent(new CustomEvent("elapsed", { bubbles: true }));
      }
    }
    if (shown.every(({ elapsed }) => elapsed)) clearInterval(timer);
  };
  const timer = setInterval(tick, 1000);
  tick();
}

start();
