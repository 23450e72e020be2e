// The panel that shows the lines of a reply's stream as they arrive.

import { copy } from "./clipboard.js";
import { element } from "./dom.js";
import { page } from "./page.js";
import { bytes, count, seconds } from "./words.js";

const MOST_LINES = 500; // the oldest leave first
const MOST_TEXT = 1_000_000; // characters
const LONGEST = 4000; // characters of a line that are shown
const NEAR = 32; // pixels from the end that count as the end

/** The lines of the last reply, which are kept even while the panel is closed. */
export class Protocol {
  #list = page.lines.querySelector("ol");
  #rows = []; // {text, time, kind}
  #size = 0; // characters in the rows
  #shown = 0; // rows that are on the page
  #began = 0;
  #figures = null;
  #frame = 0;

  constructor() {
    page.inspect.addEventListener("click", () => this.toggle(page.protocol.hidden));
    page["close-protocol"].addEventListener("click", () => this.toggle(false));
    page["copy-lines"].addEventListener("click", () => copy(this.text, page["copy-lines"]));
    page.protocol.addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
    this.#draw();
  }

  /** The lines as the server sent them. */
  get text() {
    return this.#rows.filter(({ kind }) => kind === "line").map(({ text }) => `${text}\n`).join("");
  }

  toggle(visible) {
    page.protocol.hidden = !visible;
    page.inspect.setAttribute("aria-expanded", String(visible));
    if (visible) {
      this.#schedule();
      page["close-protocol"].focus();
    } else page.inspect.focus();
  }

  /** Begins another reply. `words` name its first request. */
  begin(words) {
    this.#rows = [];
    this.#size = this.#shown = 0;
    this.#list.replaceChildren();
    this.#began = performance.now();
    this.#figures = { chunks: 0, earlier: 0, total: 0, first: null, reconnects: 0, isRecovering: false };
    this.#add(words, "fact");
  }

  /** Takes the head of a response. */
  head(response) {
    this.#figures.earlier += this.#figures.total;
    this.#figures.total = 0;
    const type = response.headers.get("content-type") ?? "no content";
    this.#add(`${response.status} ${type}`, "fact");
  }

  /** Takes a line, and the bytes of its response so far. */
  line(text, total) {
    const figures = this.#figures;
    figures.total = total;
    if (typeOf(text) === "chunk") {
      figures.chunks += 1;
      figures.first ??= this.#now;
    }
    return this.#add(text, "line");
  }

  /** Takes an object that the page has from the reply's document, because its line was lost with the connection. */
  recovered(object) {
    if (!this.#figures.isRecovering) this.#add("the lines below were lost with the connection, and read again", "fact");
    this.#figures.isRecovering = true;
    this.line(JSON.stringify(object), this.#figures.total);
  }

  /** Takes the loss of a connection, whose next attempt is due after some seconds. */
  lost(reason, wait) {
    this.#figures.reconnects += 1;
    this.#add(`${reason}; next attempt in ${seconds(wait)}`, "fact bad");
  }

  /** Takes what the page itself does. */
  fact(words) {
    this.#add(words, "fact");
  }

  get #now() {
    return (performance.now() - this.#began) / 1000;
  }

  #add(text, kind) {
    this.#rows.push({ text, kind, time: this.#now });
    this.#size += text.length;
    while (this.#rows.length > MOST_LINES || (this.#size > MOST_TEXT && this.#rows.length > 1)) {
      this.#size -= this.#rows.shift().text.length;
      if (this.#shown > 0) {
        this.#list.firstChild.remove();
        this.#shown -= 1;
      }
    }
    this.#schedule();
  }

  #schedule() {
    if (!page.protocol.hidden) this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { scrollHeight, scrollTop, clientHeight } = page.lines;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#list.append(...this.#rows.slice(this.#shown).map(rowOf));
    this.#shown = this.#rows.length;
    page["no-lines"].hidden = this.#figures !== null;
    page["copy-lines"].disabled = this.#figures === null;
    page.figures.replaceChildren(...this.#describe());
    if (follows) page.lines.scrollTop = page.lines.scrollHeight;
  }

  #describe() {
    const { chunks, earlier, total, first, reconnects } = this.#figures ?? {};
    const figures = {
      Chunks: chunks?.toLocaleString("en"),
      Bytes: this.#figures && bytes(earlier + total),
      "First chunk": first && wait(first),
      Reconnects: reconnects?.toLocaleString("en"),
    };
    return Object.entries(figures).map(([name, value]) =>
      element("div", {}, [element("dt", {}, [name]), element("dd", {}, [value ?? "–"])]),
    );
  }
}

function wait(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : seconds(value);
}

function rowOf({ text, kind, time }) {
  const stamp = element("time", {}, [time.toFixed(3)]);
  if (kind !== "line") return element("li", {}, [stamp, element("span", { class: kind }, [text])]);
  const type = typeOf(text);
  return element("li", type === "error" ? { class: "error" } : {}, [stamp, element("code", {}, spell(text, type))]);
}

/** Returns the nodes of a line, with its type marked. */
function spell(text, type) {
  const rest = text.length - LONGEST;
  const shown = rest > 0 ? `${text.slice(0, LONGEST)}… ${count(rest, "more character")}` : text;
  const place = type === null ? -1 : shown.indexOf(`"${type}"`);
  if (place < 0) return [shown];
  const end = place + type.length + 2;
  return [shown.slice(0, place), element("span", { class: "type" }, [shown.slice(place, end)]), shown.slice(end)];
}

function typeOf(line) {
  return /^\{"type":\s*"([a-z_]+)"/.exec(line)?.[1] ?? null;
}
