// The channels: who the user is, and two panes that each show one channel.

import { Pane } from "./pane.js";
import { kept, page } from "./status.js";
import { count } from "./words.js";

const NAME = /^[\p{L}\p{N}][\p{L}\p{M}\p{N} .'’_-]{0,31}$/u; // as the server has it
const FIRST = ["engineering", "science"]; // what the panes show at first

/** `url` returns the address of a channel by its name. */
export class Channels {
  #panes;

  constructor(url) {
    const onUnread = () => this.#count();
    this.#panes = FIRST.map((channel, index) => {
      const key = `channel-${index}`;
      return new Pane(page.panes, { key, channel: kept.get(key) ?? channel, url, onUnread });
    });
    page.who.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#enter(page.name.value.trim().normalize());
    });
    page.rename.addEventListener("click", () => this.#ask());
    page.stay.addEventListener("click", () => this.#show(kept.get("name")));
    const name = kept.get("name");
    if (NAME.test(name ?? "")) this.#show(name);
    else this.#ask({ focus: false });
  }

  #enter(name) {
    const fault = NAME.test(name) ? "" : "Use 1 to 32 letters, digits, spaces, dots, apostrophes, hyphens or underscores.";
    page["name-fault"].textContent = fault;
    page.name.setAttribute("aria-invalid", String(fault !== ""));
    if (fault) return page.name.focus();
    kept.set("name", name);
    this.#show(name);
    return this.#panes[0].focus();
  }

  #ask({ focus = true } = {}) {
    page.name.value = kept.get("name") ?? "";
    page.who.hidden = false;
    page.stay.hidden = !kept.get("name");
    page.known.hidden = true;
    if (focus) page.name.select();
  }

  #show(name) {
    page.who.hidden = true;
    page.known.hidden = false;
    page.you.textContent = name;
    for (const pane of this.#panes) pane.as(name);
  }

  #count() {
    const total = this.#panes.reduce((sum, pane) => sum + pane.unread, 0);
    document.title = total ? `(${total}) Mission control` : "Mission control";
    page.unread.hidden = total === 0;
    page.unread.textContent = String(total);
    page.unread.setAttribute("aria-label", `, ${count(total, "unread message")}`);
  }
}
