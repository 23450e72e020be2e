// Tables and small parts of the API's page.

import { element } from "./dom.js";
import { inline } from "./prose.js";
import { sentence } from "./words.js";

export function table(head, rows) {
  const row = (name, cells) => element("tr", {}, cells.map((cell) => element(name, {}, [cell].flat())));
  return element("div", { class: "table", tabindex: "0", role: "group", "aria-label": head.join(", ") }, [
    element("table", {}, [
      element("thead", {}, [row("th", head)]),
      element("tbody", {}, rows.map((cells) => row("td", cells))),
    ]),
  ]);
}

export function title(text) {
  return element("h4", {}, [text]);
}

export function code(text) {
  return element("code", {}, [text]);
}

export function button(label, attributes = {}) {
  return element("button", { type: "button", ...attributes }, [label]);
}

/** Returns sentences as nodes, without the empty ones. */
export function said(...parts) {
  return inline(parts.filter(Boolean).map(sentence).join(" "));
}
