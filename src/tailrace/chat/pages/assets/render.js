// Renders Markdown as nodes of a document, while the text is still growing.

import { element } from "./dom.js";
import { parseBlocks, parseInline } from "./markdown.js";

/** Markdown in an element. `append` adds text, and `render` shows it. */
export class Growing {
  #element;
  #text = ""; // of the blocks that may still change
  #settled = 0; // nodes that cannot

  constructor(element) {
    this.#element = element;
  }

  append(text) {
    this.#text += text;
  }

  /** Clears the text. The element keeps its contents until the next `render`. */
  clear() {
    this.#text = "";
    this.#settled = 0;
  }

  render() {
    const lines = this.#text.replaceAll("\r\n", "\n").split("\n");
    const blocks = parseBlocks(lines);
    const fresh = blocks.map(buildBlock);
    const shown = [...this.#element.childNodes].slice(this.#settled);
    fresh.forEach((node, index) => {
      if (index < shown.length) patch(shown[index], node);
      else this.#element.append(node);
    });
    shown.slice(fresh.length).forEach((node) => node.remove());
    this.#settle(lines, blocks);
  }

  /** Settles the blocks that cannot change: two whole lines of the next block are enough to know where it begins. */
  #settle(lines, blocks) {
    const count = blocks.findLastIndex((block) => block.from + 2 < lines.length);
    if (count < 1) return;
    this.#settled += count;
    this.#text = lines.slice(blocks[count].from).join("\n");
  }
}

/** Returns the nodes of a line of Markdown, without blocks. */
export function renderLine(text) {
  return [...inlines(element("span"), parseInline(text)).childNodes];
}

/** Makes a node equal to a fresh one. Equal parts are kept, so that a selection in them survives. */
function patch(node, fresh) {
  if (!node.cloneNode(false).isEqualNode(fresh.cloneNode(false))) {
    if (node.nodeType !== Node.TEXT_NODE || fresh.nodeType !== Node.TEXT_NODE) return node.replaceWith(fresh);
    if (fresh.data.startsWith(node.data)) return node.appendData(fresh.data.slice(node.length));
    node.data = fresh.data;
    return undefined;
  }
  const [old, children] = [[...node.childNodes], [...fresh.childNodes]];
  children.forEach((child, index) => {
    if (index < old.length) patch(old[index], child);
    else node.append(child);
  });
  old.slice(children.length).forEach((child) => child.remove());
  return undefined;
}

const BLOCKS = {
  // The page itself has two levels of headings.
  heading: ({ level, children }) => inlines(element(`h${Math.min(6, level + 2)}`), children),
  paragraph: ({ children }) => inlines(element("p"), children),
  rule: () => element("hr"),
  quote: ({ children }) => element("blockquote", {}, children.map(buildBlock)),
  code: ({ language, text }) =>
    // A wide code block scrolls, also by keys.
    element("pre", { tabindex: "0", role: "group", "aria-label": language ? `Code, ${language}` : "Code" }, [
      element("code", {}, [text]),
    ]),
  list: ({ ordered, start, loose, items }) =>
    element(
      ordered ? "ol" : "ul",
      ordered && start !== 1 ? { start } : {},
      items.map((item) => buildItem(item, loose)),
    ),
  table: ({ align, head, rows }) =>
    element("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, [
      element("table", {}, [
        element("thead", {}, [buildRow("th", head, align)]),
        element("tbody", {}, rows.map((row) => buildRow("td", row, align))),
      ]),
    ]),
};

function buildBlock(block) {
  return BLOCKS[block.type](block);
}

function buildItem({ checked, children }, loose) {
  const item = element("li", checked === null ? {} : { class: "task" });
  if (checked !== null) item.append(checked ? "☑ " : "☐ ");
  for (const block of children) {
    if (block.type === "paragraph" && !loose) inlines(item, block.children);
    else item.append(buildBlock(block));
  }
  return item;
}

function buildRow(name, row, align) {
  const cells = row.map((cell, column) => inlines(element(name, { class: align[column] }), cell));
  return element("tr", {}, cells);
}

const INLINES = { strong: "strong", emphasis: "em", deleted: "del" };

function inlines(parent, children) {
  for (const child of children) parent.append(typeof child === "string" ? child : buildInline(child));
  parent.normalize();
  return parent;
}

function buildInline({ type, text, url, children }) {
  if (type === "break") return element("br");
  if (type === "code") return element("code", {}, [text]);
  if (type === "link") return link(url, children);
  return inlines(element(INLINES[type]), children);
}

/** Returns a link to the web. Any other address becomes text that names it. */
function link(url, children) {
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) {
    return inlines(element("span"), children[0] === url ? children : [...children, ` (${url})`]);
  }
  return inlines(element("a", { href: url, rel: "noopener noreferrer nofollow", target: "_blank" }), children);
}
