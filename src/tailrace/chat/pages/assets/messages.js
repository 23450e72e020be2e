// The messages of a conversation on the page. They are drawn once per frame, and scroll only if the user is at the end.

import { element } from "./dom.js";
import { Growing } from "./render.js";
import { factsOf, stateOf } from "./words.js";

const NEAR = 48; // pixels from the end that count as the end

export class Messages {
  #list;
  #scroller;
  #newest;
  #pinned = true;
  #changed = new Set();
  #frame = 0;

  /** `list` holds the messages, `scroller` scrolls them, and `newest` is the button that leads to the end. */
  constructor(list, scroller, newest) {
    this.#list = list;
    this.#scroller = scroller;
    this.#newest = newest;
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    new ResizeObserver(() => this.#follow()).observe(scroller);
    newest.addEventListener("click", () => {
      this.toEnd();
      scroller.focus();
    });
  }

  get empty() {
    return this.#list.childElementCount === 0;
  }

  clear() {
    this.#list.replaceChildren();
    this.toEnd();
  }

  toEnd() {
    this.#pinned = true;
    this.#follow();
  }

  /** Adds the user's message. */
  said(text) {
    const item = message("user", "You");
    item.lastChild.textContent = text;
    this.#list.append(item);
    this.#follow();
    return item;
  }

  /** Adds a reply. `facts` are those of words.js. `again` is called when the user wants to ask again. */
  reply(model, text, facts, again = null) {
    const reply = new Reply(model, this);
    reply.append(text);
    reply.draw();
    reply.tell(facts, again);
    this.#list.append(reply.item);
    this.#follow();
    return reply;
  }

  /** Inserts the messages that `fill` adds before the existing ones, which keep their place on the screen. */
  before(fill) {
    const [first, height] = [this.#list.firstChild, this.#scroller.scrollHeight];
    const there = [...this.#list.childNodes];
    this.#pinned = false;
    fill();
    const added = [...this.#list.childNodes].slice(there.length);
    for (const item of added) this.#list.insertBefore(item, first);
    this.#scroller.scrollTop += this.#scroller.scrollHeight - height;
  }

  /** Draws a reply with the next frame. */
  schedule(reply) {
    this.#changed.add(reply);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    for (const reply of this.#changed) reply.draw();
    this.#changed.clear();
    this.#follow();
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#pinned = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#newest.hidden = this.#pinned;
  }

  #follow() {
    if (this.#pinned) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#look();
  }
}

/** One reply, which can grow. */
class Reply {
  #messages;
  #text;
  #facts = element("p", { class: "facts" });
  #told = null;

  constructor(model, messages) {
    this.#messages = messages;
    this.item = message("assistant", model);
    this.#text = new Growing(this.item.lastChild);
    this.item.append(this.#facts);
  }

  name(model) {
    this.item.firstChild.textContent = model;
  }

  append(text) {
    this.#text.append(text);
    this.#messages.schedule(this);
  }

  clear() {
    this.#text.clear();
    this.#messages.schedule(this);
  }

  tell(facts, again = null) {
    this.#told = { facts, again };
    this.#messages.schedule(this);
  }

  remove() {
    this.item.remove();
  }

  draw() {
    this.#text.render();
    if (!this.#told) return;
    const { facts, again } = this.#told;
    this.#told = null;
    this.#facts.classList.toggle("bad", facts.state === "failed" || facts.state === "interrupted");
    // While the reply grows, its figures are shown below, so that nothing flickers here.
    this.#facts.textContent = facts.state === "generating" ? stateOf(facts) : factsOf(facts);
    if (again) this.#facts.append(button("Ask again", again));
  }
}

function message(role, name) {
  return element("li", { class: `message ${role}` }, [element("h2", {}, [name]), element("div", { class: "said" })]);
}

function button(label, act) {
  const made = element("button", { type: "button" }, [label]);
  made.addEventListener("click", act, { once: true });
  return made;
}
