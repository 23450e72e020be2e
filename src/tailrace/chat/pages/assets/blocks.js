// Shows a reply's blocks, which the server has rendered as HTML and sanitised.

import { element } from "./dom.js";
import { quietButton } from "./icons.js";

const OPEN = 8; // blocks at the end whose heights the browser always knows
const TASK = /^\s*[☐☑] /;
const SHORT = 24; // characters of a cell that stay in one line

// The page's policy lets scripts parse HTML only through this one place.
const trusted = globalThis.trustedTypes?.createPolicy("tailrace", { createHTML: (html) => html });

/** The blocks of one reply in an element. Only those that change are touched. */
export class Blocks {
  #element;
  #blocks = new Map();
  #last = -1; // the highest number so far

  constructor(element) {
    this.#element = element;
  }

  /** Shows the HTML of a block in place of what it had. A block without HTML has nothing to show yet. */
  set(number, html) {
    const fresh = prepare(parse(html));
    const block = this.#blocks.get(number);
    if (!fresh.hasChildNodes()) this.#remove(number);
    else if (block) patchChildren(block, fresh);
    else this.#add(number, fresh);
  }

  /** Shows the HTML of a whole reply at once, which for 200 KB takes 45 ms. Block by block it takes 75 ms. */
  fill(html) {
    const blocks = [...prepare(parse(html)).children].map((child) => element("div", { class: "block" }, [child]));
    for (const block of blocks.slice(0, 1 - OPEN)) block.classList.add("settled");
    this.#element.append(...blocks);
    this.#blocks = new Map(blocks.entries());
    this.#last = blocks.length - 1;
  }

  clear() {
    this.#element.replaceChildren();
    this.#blocks.clear();
    this.#last = -1;
  }

  #add(number, content) {
    const block = element("div", { class: "block" });
    block.append(content);
    this.#element.insertBefore(block, this.#after(number));
    this.#blocks.set(number, block);
    this.#element.children[this.#element.childElementCount - OPEN]?.classList.add("settled");
    this.#last = Math.max(this.#last, number);
  }

  #remove(number) {
    this.#blocks.get(number)?.remove();
    this.#blocks.delete(number);
  }

  /** Returns the block that comes after a number, if there is one. */
  #after(number) {
    if (number > this.#last) return null;
    const later = [...this.#blocks.keys()].filter((one) => one > number);
    return later.length ? this.#blocks.get(Math.min(...later)) : null;
  }
}

function parse(html) {
  const template = document.createElement("template");
  const text = html.trim(); // so that a block has no blank text at its ends
  template.innerHTML = trusted ? trusted.createHTML(text) : text;
  return template.content;
}

/** Adds what only a page with a script can offer: buttons to copy code, code that scrolls by keys, and more. */
function prepare(content) {
  for (const cell of content.querySelectorAll("th, td")) {
    cell.classList.toggle("long", cell.textContent.length > SHORT);
  }
  for (const item of content.querySelectorAll("li")) item.classList.toggle("task", TASK.test(item.textContent));
  for (const code of content.querySelectorAll(".code")) {
    const language = code.querySelector(".lang")?.textContent;
    const pre = code.querySelector("pre");
    pre.tabIndex = 0;
    pre.setAttribute("role", "group");
    pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
    const button = quietButton("copy", "Copy");
    button.classList.add("copy-code");
    code.querySelector(".bar").append(button);
  }
  return content;
}

/** Makes a node equal to a fresh one. Equal parts are kept, so that a selection in them survives. */
function patch(node, fresh) {
  if (!node.cloneNode(false).isEqualNode(fresh.cloneNode(false))) {
    if (node.nodeType !== Node.TEXT_NODE || fresh.nodeType !== Node.TEXT_NODE) node.replaceWith(fresh);
    else if (fresh.data.startsWith(node.data)) node.appendData(fresh.data.slice(node.length));
    else node.data = fresh.data;
    return;
  }
  patchChildren(node, fresh);
}

function patchChildren(node, fresh) {
  const [old, children] = [[...node.childNodes], [...fresh.childNodes]];
  children.forEach((child, index) => {
    if (index < old.length) patch(old[index], child);
    else node.append(child);
  });
  old.slice(children.length).forEach((child) => child.remove());
}
