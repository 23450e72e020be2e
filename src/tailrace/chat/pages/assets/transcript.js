// The lines of a stream as they arrive. If the stream is long, only the last ones are kept.

import { element } from "./dom.js";
import { count } from "./words.js";

const MOST_LINES = 500;
const MOST_TEXT = 1_000_000; // characters
const LONGEST = 4000; // characters of a line that are shown
const NEAR = 32; // pixels from the end that count as the end

export class Transcript {
  #rows = []; // {text, kind, seconds}
  #size = 0; // characters in the rows
  #omitted = 0; // rows that have left
  #shown = 0; // rows that are on the page
  #frame = 0;
  #list = element("ol");
  #box = element("div", { class: "rows", tabindex: "0", role: "group", "aria-label": "The stream" }, [this.#list]);
  #omission = element("p", { class: "help" });

  constructor() {
    this.element = element("div", {}, [this.#omission, this.#box]);
    this.clear();
  }

  clear() {
    this.#rows = [];
    this.#size = this.#omitted = this.#shown = 0;
    this.#list.replaceChildren();
    this.#schedule();
  }

  /** Adds a line of the stream (kind `line`), or a sentence about it (`fact`). */
  add(text, kind, seconds) {
    const rest = text.length - LONGEST;
    const shown = rest > 0 ? `${text.slice(0, LONGEST)}… ${count(rest, "more character")}` : text;
    this.#rows.push({ text: shown, kind, seconds });
    this.#size += shown.length;
    while (this.#rows.length > MOST_LINES || this.#size > MOST_TEXT) this.#drop();
    this.#schedule();
  }

  #drop() {
    this.#size -= this.#rows.shift().text.length;
    this.#omitted += 1;
    if (this.#shown === 0) return;
    this.#shown -= 1;
    this.#list.firstChild.remove();
  }

  /** Draws once a frame, however many lines arrive. */
  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#list.append(...this.#rows.slice(this.#shown).map(rowOf));
    this.#shown = this.#rows.length;
    this.#omission.hidden = this.#omitted === 0;
    this.#omission.textContent = `The page keeps the last lines. ${count(this.#omitted, "earlier line")} left out.`;
    this.element.hidden = this.#rows.length === 0;
    if (follows) this.#box.scrollTop = this.#box.scrollHeight;
  }
}

function rowOf({ text, kind, seconds }) {
  return element("li", { class: kind }, [
    element("time", {}, [seconds.toFixed(3)]),
    element(kind === "line" ? "code" : "span", {}, [text]),
  ]);
}
