// The messages of a conversation on the page. They are drawn once per frame, and scroll only if the user is at the end.

import { copy } from "./clipboard.js";
import { Asked } from "./asked.js";
import { page } from "./page.js";
import { Reply } from "./reply.js";

const NEAR = 48; // pixels from the end that count as the end

export class Messages {
  #turns = []; // {streamId, asked, reply}
  #act;
  #pinned = true;
  #changed = new Set();
  #frame = 0;

  /** `act` has the actions edit(turn, text) and again(turn). */
  constructor(act) {
    this.#act = act;
    page.log.addEventListener("scroll", () => this.#look(), { passive: true });
    const resized = new ResizeObserver(() => this.#follow());
    resized.observe(page.log);
    resized.observe(page.messages);
    page.latest.addEventListener("click", () => {
      this.toEnd();
      page.log.focus();
    });
    page.messages.addEventListener("click", ({ target }) => copyCode(target.closest(".copy-code")));
  }

  get turns() {
    return this.#turns;
  }

  get last() {
    return this.#turns.at(-1);
  }

  clear() {
    this.#turns = [];
    page.messages.replaceChildren();
    this.toEnd();
  }

  toEnd() {
    this.#pinned = true;
    this.#follow();
  }

  /** Adds a message and its reply at the end. `answer` has model, text, html and the facts of words.js. */
  add(text, streamId, answer) {
    const turn = this.#make(text, streamId, answer);
    this.append(turn);
    return turn;
  }

  /** Adds a turn that is made already, such as one that was cut. */
  append(turn) {
    this.#turns.push(turn);
    page.messages.append(turn.asked.item, turn.reply.item);
    this.#follow();
  }

  /** Inserts turns before those that are there, which keep their place on the screen. */
  insert(turns) {
    const height = page.log.scrollHeight;
    this.#pinned = false;
    const made = turns.map(({ text, streamId, answer }) => this.#make(text, streamId, answer));
    page.messages.prepend(...made.flatMap(({ asked, reply }) => [asked.item, reply.item]));
    this.#turns.unshift(...made);
    page.log.scrollTop += page.log.scrollHeight - height;
  }

  /** Removes all turns from a place on, and returns them. */
  cut(index) {
    const turns = this.#turns.splice(index);
    for (const { asked, reply } of turns) {
      asked.item.remove();
      reply.item.remove();
    }
    return turns;
  }

  #make(text, streamId, answer) {
    const turn = { streamId };
    turn.asked = new Asked(text, (changed) => this.#act.edit(turn, changed));
    turn.reply = new Reply(answer, { changed: (reply) => this.#schedule(reply), again: () => this.#act.again(turn) });
    return turn;
  }

  /** Draws a reply with the next frame. */
  #schedule(reply) {
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
    const { scrollHeight, scrollTop, clientHeight } = page.log;
    this.#pinned = scrollHeight - scrollTop - clientHeight < NEAR;
    page.latest.hidden = this.#pinned || this.#turns.length === 0;
  }

  #follow() {
    if (this.#pinned) page.log.scrollTop = this.#turns.length ? page.log.scrollHeight : 0;
    this.#look();
  }
}

function copyCode(button) {
  if (button) copy(button.closest(".code").querySelector("code").textContent, button);
}
