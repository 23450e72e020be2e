// One reply on the page: its blocks, what became of it, and what can be done with it.

import { Blocks } from "./blocks.js";
import { copy } from "./clipboard.js";
import { element } from "./dom.js";
import { icon, quietButton, setIcon } from "./icons.js";
import { factsOf, stateOf, troubleOf } from "./words.js";

const ICONS = { generating: "busy", complete: "done", stopped: "stop", failed: "failed", interrupted: "interrupted" };

export class Reply {
  #changed;
  #text = "";
  #facts = null;
  #blocks;
  #fresh = new Map(); // HTML of blocks that is not drawn yet
  #html = null; // of the whole reply, if it is not drawn yet
  #plain = element("div", { class: "plain", dir: "auto" }); // what has no HTML: there is no renderer
  #drawn = 0; // characters of the plain text that are on the page
  #isPlain = true;
  #stale = false; // whether what is shown is from before a reset
  #isOver = false; // whether it goes with the next draw
  #said = element("div", { class: "said prose" });
  #mark = icon("busy");
  #word = element("span");
  #line = element("span");
  #outcome = element("p", { class: "outcome" }, [element("strong", {}, [this.#mark, this.#word]), this.#line]);
  #problem = element("p", { class: "problem", hidden: "" });
  #tools;
  #again;

  /** `act` has the functions changed(reply), which asks for a draw, and again(). */
  constructor({ model, text = "", html = null, facts }, act) {
    this.#changed = act.changed;
    this.#blocks = new Blocks(this.#said);
    this.#text = text;
    this.#html = html;
    const copying = quietButton("copy", "Copy", () => copy(this.#text, copying));
    this.#again = quietButton("again", "Regenerate", act.again);
    this.#again.classList.add("only-last");
    this.#tools = element("div", { class: "tools" }, [copying, this.#again]);
    this.item = element("li", { class: "message assistant" }, [
      element("h2", {}, [model]),
      this.#said,
      this.#outcome,
      this.#problem,
      this.#tools,
    ]);
    this.tell(facts);
    this.draw();
  }

  get facts() {
    return this.#facts;
  }

  name(model) {
    this.item.firstChild.textContent = model;
  }

  /** Takes a piece of text, and the HTML of the blocks that it changes: [{number, html}]. */
  append(text, blocks) {
    this.#renew();
    this.#text += text;
    for (const { number, html } of blocks ?? []) this.#fresh.set(number, html);
    this.#changed(this);
  }

  /** Takes a reset: the text comes again. It stays visible until new text or the end arrives. */
  reset() {
    this.#stale = true;
  }

  /** Takes facts about the reply, which are those of words.js. Those that it has stay. */
  tell(facts) {
    if (facts.state && facts.state !== "generating") this.#renew();
    this.#facts = { ...this.#facts, ...facts, text: this.#text !== "" };
    this.#changed(this);
  }

  draw() {
    this.#drawText();
    const { state } = this.#facts;
    const trouble = troubleOf(this.#facts);
    this.#outcome.dataset.state = state;
    setIcon(this.#mark, ICONS[state]);
    this.#word.textContent = stateOf(this.#facts);
    this.#line.textContent = factsOf({ ...this.#facts, text: this.#text !== "" });
    this.#problem.textContent = trouble ?? "";
    this.#problem.hidden = trouble === null;
    this.#tools.hidden = state === "generating";
    this.#tools.firstChild.hidden = this.#text === "";
    this.#again.lastChild.textContent = trouble === null ? "Regenerate" : "Retry";
  }

  #drawText() {
    if (this.#isOver) this.#clear();
    if (this.#html !== null || this.#fresh.size) this.#isPlain = false;
    if (this.#html !== null) this.#blocks.fill(this.#html);
    for (const [number, html] of this.#fresh) this.#blocks.set(number, html);
    this.#html = null;
    this.#fresh.clear();
    if (this.#isPlain && this.#text) this.#drawPlain();
    this.#said.classList.toggle("prose", !this.#isPlain);
  }

  #drawPlain() {
    this.#plain.append(this.#text.slice(this.#drawn));
    this.#drawn = this.#text.length;
    if (this.#plain.parentNode === null) this.#said.append(this.#plain);
  }

  #renew() {
    if (!this.#stale) return;
    this.#stale = false;
    this.#text = "";
    this.#isOver = true;
    this.#fresh.clear();
  }

  #clear() {
    this.#isOver = false;
    this.#isPlain = true;
    this.#plain.textContent = "";
    this.#drawn = 0;
    this.#blocks.clear();
  }
}
