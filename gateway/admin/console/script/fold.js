// On a phone a section folds up, so that those below it are near; what is long is folded at first.
const FOLDED = ["s-panels", "s-routes", "s-config", "s-trail"];

function set(section, folded) {
  section.classList.toggle("folded", folded);
  section.querySelector(".fold").setAttribute("aria-expanded", String(!folded));
}

/** Give each section its button; whoever goes to one by a link unfolds it. */
export function foldable(sections) {
  for (const section of sections) {
    const title = section.querySelector("h2");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "fold";
    button.setAttribute("aria-controls", section.lastElementChild.id);
    button.setAttribute("aria-labelledby", title.id);
    title.after(button);
    set(section, FOLDED.includes(section.id));
    const turn = () => set(section, !section.classList.contains("folded"));
    button.addEventListener("click", turn);
    title.addEventListener("click", turn);
  }
  document.querySelector(".places").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link) unfold(document.getElementById(link.hash.slice(1)));
  });
}

/** Have what stands in a section seen. */
export const unfold = (section) => set(section, false);
