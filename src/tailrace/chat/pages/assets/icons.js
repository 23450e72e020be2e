// Icons, which the page defines once as symbols, and the buttons that carry them.

import { element } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

/** Returns the icon that the page defines as `icon-NAME`. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "use"));
  setIcon(svg, name);
  return svg;
}

/** Makes an icon show another symbol. */
export function setIcon(svg, name) {
  svg.firstElementChild.setAttribute("href", `#icon-${name}`);
}

/** Returns a button in the background with an icon and a label. */
export function quietButton(name, label, act = null) {
  const made = element("button", { type: "button", class: "quiet" }, [icon(name), element("span", {}, [label])]);
  if (act) made.addEventListener("click", act);
  return made;
}
