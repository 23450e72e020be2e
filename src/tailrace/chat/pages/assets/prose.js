// Shows the descriptions in the API's document: paragraphs, lists and code in them.

import { element } from "./dom.js";

/** Returns the nodes of a line, with its code marked. */
export function inline(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, [part]) : part));
}

/** Returns an element with the paragraphs and lists of a description. */
export function prose(text) {
  const blocks = (text ?? "").trim().split(/\n{2,}/).filter(Boolean);
  return element("div", {}, blocks.map(blockOf));
}

function blockOf(block) {
  if (!block.startsWith("- ")) return element("p", {}, inline(block));
  const items = block.split(/\n?^- /m).filter(Boolean);
  return element("ul", {}, items.map((item) => element("li", {}, inline(item.trim()))));
}
