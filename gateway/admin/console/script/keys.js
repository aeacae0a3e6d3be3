// The keyboard: a digit goes to a section, ? tells the keys, Escape closes what is open.
import { unfold } from "./fold.js";

const help = document.getElementById("help");
const typing = (target) => target.closest("input, textarea, select, dialog[open]") !== null;

/** Begin to listen to keys. */
export function listenToKeys(sections) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (event.key === "?") {
      event.preventDefault();
      help.showModal();
    }
    const section = sections[Number(event.key) - 1];
    if (section) {
      unfold(section);
      section.scrollIntoView({ block: "start" });
      section.focus({ preventScroll: true });
    }
  });
  help.addEventListener("click", (event) => {
    if (event.target === help || event.target.closest("button")) help.close();
  });
}
