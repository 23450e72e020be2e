// The list of sessions beside the conversation.

import { ask } from "./server.js";
import { count, time } from "./words.js";

const PAGE = 30;

export function titleOf(session) {
  return session.title || "New session";
}

/** The address of this page with a session, or with none. */
export function addressOf(sessionId) {
  const url = new URL(location.href);
  url.search = sessionId === null ? "" : new URLSearchParams({ session: sessionId });
  return url.href;
}

export class Sessions {
  #page;
  #act;
  #current = null;
  #next = null;
  #latest = 0;

  /** `page` has the elements list, more and none; `act` is told what is chosen: open(id), remove(session). */
  constructor(page, act) {
    this.#page = page;
    this.#act = act;
    page.more.addEventListener("click", () => this.#act.trying(() => this.#more()));
  }

  /** Marks the session that is shown. */
  mark(sessionId) {
    this.#current = sessionId;
    for (const link of this.#page.list.querySelectorAll("a")) {
      if (link.dataset.session === sessionId) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** The newest sessions, as the server has them now. */
  async refresh() {
    const turn = ++this.#latest;
    const found = await ask("GET", "sessions", { limit: PAGE });
    if (turn !== this.#latest) return; // a later one was faster
    const focused = document.activeElement?.dataset?.session;
    this.#page.list.replaceChildren();
    this.#show(found);
    if (focused) this.#page.list.querySelector(`a[data-session="${CSS.escape(focused)}"]`)?.focus();
  }

  async #more() {
    const found = await ask("GET", "sessions", { limit: PAGE, after: this.#next });
    const there = this.#page.list.childElementCount;
    this.#show(found);
    this.#page.list.children[there]?.querySelector("a").focus();
  }

  #show({ sessions, next }) {
    this.#next = next;
    this.#page.more.hidden = next === null;
    this.#page.list.append(...sessions.map((session) => this.#item(session)));
    this.#page.none.hidden = this.#page.list.childElementCount > 0;
    this.mark(this.#current);
  }

  #item(session) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = addressOf(session.session_id);
    link.dataset.session = session.session_id;
    const title = document.createElement("span");
    title.textContent = titleOf(session);
    const facts = document.createElement("small");
    const state = session.stream_id ? "generating" : count(session.message_count, "message");
    facts.textContent = `${state} · ${time(session.updated)}`;
    link.append(title, facts);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a tab of its own
      event.preventDefault();
      this.#act.open(session.session_id);
    });
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Delete";
    remove.setAttribute("aria-label", `Delete “${titleOf(session)}”`);
    remove.addEventListener("click", () => this.#act.remove(session));
    item.append(link, remove);
    return item;
  }
}
