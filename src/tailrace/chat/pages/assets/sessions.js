// The list of sessions beside the conversation.

import { element } from "./dom.js";
import { ask } from "./server.js";
import { count, time } from "./words.js";

const PAGE = 30;

export function titleOf(session) {
  return session.title || "New session";
}

/** Returns the address of this page with a session, or without one. */
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

  /** `page` has the elements list, more and none. `act` has the actions open(id) and remove(session). */
  constructor(page, act) {
    this.#page = page;
    this.#act = act;
    page.more.addEventListener("click", () => this.#act.trying(() => this.#more()));
  }

  /** Marks the current session. */
  mark(sessionId) {
    this.#current = sessionId;
    for (const link of this.#page.list.querySelectorAll("a")) {
      if (link.dataset.session === sessionId) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Loads the newest sessions from the server. */
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
    const [id, title] = [session.session_id, titleOf(session)];
    const state = session.stream_id ? "generating" : count(session.message_count, "message");
    const link = element("a", { href: addressOf(id), "data-session": id }, [
      element("span", {}, [title]),
      element("small", {}, [`${state} · ${time(session.updated)}`]),
    ]);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a tab of its own
      event.preventDefault();
      this.#act.open(id);
    });
    const remove = element("button", { type: "button", "aria-label": `Delete “${title}”` }, ["Delete"]);
    remove.addEventListener("click", () => this.#act.remove(session));
    return element("li", {}, [link, remove]);
  }
}
