// What is written on the page, in the reader's language; numbers and times as they are written there.
const language = document.documentElement.lang;
const answer = await fetch(`/static/words/${language === "zh-CN" ? "zh" : "en"}.json`);
const catalogue = await answer.json();

/** A text of the catalogue; `{name}` in it is replaced. */
export function t(key, values = {}) {
  const text = catalogue[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** What a refusal says: ours by its problem type, or the API's own words in a text around them. */
export function refusal(type, detail) {
  const slug = type.split(":").pop();
  return t(`refused.${`refused.${slug}` in catalogue ? slug : "other"}`, { detail });
}

/** A text of the catalogue, or the word itself where it is somebody's own (a step, a server, a signal). */
export const named = (kind, word) => catalogue[`${kind}.${word}`] ?? String(word).replaceAll("_", " ");

let given = {}; // by the configuration, for what stands behind the gate

/** Take the configuration's words. */
export const speak = (words) => {
  given = words[language.split("-")[0]] ?? {};
};

/** A word of somebody else's, as the configuration writes it; null where it says nothing of it. */
export const told = (word) => (Object.hasOwn(given, word) ? given[word] : null);

/** The same, or the word itself. */
export const own = (word) => told(word) ?? word;

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric" });
const year = new Intl.DateTimeFormat(language, { year: "numeric", month: "short", day: "numeric" });

/** A count. */
export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));

/** Something per second: one decimal while it is small. */
export const rate = (value) => (value > 0 && value < 10 ? tenth.format(value) : whole.format(value ?? 0));

/** Milliseconds. */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${tenth.format(value / 1000)} s`;
  return `${value < 10 ? tenth.format(value) : whole.format(value)} ms`;
}

/** A share, 1 being all. */
export const percent = (value) => `${whole.format(value * 100)} %`;

/** Bytes. */
export const bytes = (value) =>
  value < 1 << 20 ? `${whole.format(value / 1024)} KiB` : `${tenth.format(value / (1 << 20))} MiB`;

/** How long, from seconds: the two largest units. */
export function lasting(seconds) {
  const left = Math.max(0, Math.round(seconds));
  const parts = [
    ["d", Math.floor(left / 86400)],
    ["h", Math.floor((left % 86400) / 3600)],
    ["m", Math.floor((left % 3600) / 60)],
    ["s", left % 60],
  ];
  const first = parts.findIndex(([, value]) => value > 0);
  if (first < 0) return t("unit.s", { n: 0 });
  return parts.slice(first, first + 2).filter(([, value]) => value > 0).map(([unit, n]) => t(`unit.${unit}`, { n })).join(" ");
}

/** When, from milliseconds since 1970: the time, and the day unless it is today. */
export const when = (at) => (new Date(at).toDateString() === new Date().toDateString() ? moment.format(at) : dated(at));

/** When, with its day, and the year unless it is this one. */
export function dated(at) {
  const thisYear = new Date(at).getFullYear() === new Date().getFullYear();
  return `${(thisYear ? day : year).format(at)} ${moment.format(at)}`;
}
