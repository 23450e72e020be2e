// The answer to a request: its state in words, its status, its headers and its body.

import { element } from "./dom.js";
import { code, table } from "./tables.js";
import { Transcript } from "./transcript.js";
import { count } from "./words.js";

const MOST_SHOWN = 100_000; // characters of a body

export class Answer {
  #began = 0;
  #figures = {};
  #frame = 0;
  #state = element("p", { class: "verdict", role: "status" });
  #list = element("dl", { class: "figures" });
  #headers = element("details");
  #note = element("p", { class: "help" });
  #body = element("pre", { tabindex: "0", role: "group", "aria-label": "Body of the answer" });
  #transcript = new Transcript();
  #content = element("div", {}, [this.#list, this.#headers, this.#note, this.#body, this.#transcript.element]);

  constructor() {
    this.#content.hidden = true;
    this.element = element("div", { class: "answer" }, [this.#state, this.#content]);
  }

  /** Begins with another request. */
  begin() {
    this.#began = performance.now();
    this.#figures = {};
    this.#content.hidden = this.#note.hidden = this.#body.hidden = true;
    this.#transcript.clear();
  }

  /** Says where the request is. `mark` is `busy`, `good`, `bad` or `left`. */
  say(words, mark) {
    this.#state.dataset.mark = mark;
    this.#state.textContent = words;
  }

  /** Takes the head of a response: the first, or one after a lost connection. */
  head({ status, statusText, headers }) {
    const rows = [...headers].map(([name, value]) => [code(name), value]);
    const summary = element("summary", {}, [count(rows.length, "header")]);
    this.#headers.replaceChildren(summary, table(["Header", "Value"], rows));
    this.#content.hidden = false;
    const first = this.#figures["First byte"] ?? spell(this.#now);
    this.#show({ Status: `${status} ${statusText}`.trim(), "First byte": first });
  }

  /** Takes the body of a document, and its bytes in words. */
  body(text, bytes) {
    this.#body.hidden = text === "";
    this.#note.hidden = text.length <= MOST_SHOWN;
    this.#note.textContent = `The first ${count(MOST_SHOWN, "character")} are shown.`;
    this.#body.replaceChildren(code(text.slice(0, MOST_SHOWN)));
    this.#show({ Complete: spell(this.#now), Bytes: bytes });
  }

  /** Takes a line of a stream. `lines` and `bytes` are those of all its responses so far. */
  line(text, { lines, bytes }) {
    this.#transcript.add(text, "line", this.#now);
    this.#show({ "Last byte": spell(this.#now), Lines: lines, Bytes: bytes });
  }

  /** Takes what happens to a stream besides its lines. */
  fact(words) {
    this.#transcript.add(words, "fact", this.#now);
  }

  get #now() {
    return (performance.now() - this.#began) / 1000;
  }

  /** Draws once a frame, however many lines arrive. Numbers are spelled only then, because that is slow. */
  #show(figures) {
    Object.assign(this.#figures, figures);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#list.replaceChildren(...Object.entries(this.#figures).map(figureOf));
    });
  }
}

function figureOf([name, value]) {
  return element("div", {}, [element("dt", {}, [name]), element("dd", {}, [value.toLocaleString("en")])]);
}

function spell(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}
