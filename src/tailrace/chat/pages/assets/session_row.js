// A row in the list of sessions. Its title can be edited in place.

import { element } from "./dom.js";
import { icon } from "./icons.js";
import { count, time } from "./words.js";

const LONGEST = 200; // characters of a title

export function titleOf(session) {
  return session.title || "New session";
}

/** Returns the address of this page with a session, or without one. */
export function addressOf(sessionId) {
  const url = new URL(location.href);
  url.search = sessionId === null ? "" : new URLSearchParams({ session: sessionId });
  url.hash = "";
  return url.href;
}

export class SessionRow {
  #act;
  #form = null;
  #title = element("span", { class: "title", dir: "auto" });
  #facts = element("small");
  #button = element("button", { type: "button", class: "quiet", "aria-haspopup": "menu", "aria-expanded": "false" });

  /** `act` has the actions open(id), rename(session, title) and choose(session, button). */
  constructor(session, act) {
    this.#act = act;
    this.link = this.#makeLink(session.session_id);
    this.#button.append(icon("more"));
    this.#button.addEventListener("click", (event) => {
      event.preventDefault(); // the menu is opened by a script, at its place
      act.choose(this.session, this.#button);
    });
    this.item = element("li", { "data-session": session.session_id }, [this.link, this.#button]);
    this.update(session);
  }

  /** Shows what the server says of the session now. */
  update(session) {
    const { stream_id: stream, message_count: messages, updated } = session;
    this.session = session;
    this.#title.textContent = titleOf(session);
    this.#facts.className = stream ? "generating" : "";
    this.#facts.textContent = stream ? "Generating" : `${count(messages, "message")} · ${time(updated)}`;
    this.#button.setAttribute("aria-label", `More for “${titleOf(session)}”`);
    return this;
  }

  get isEdited() {
    return this.#form !== null;
  }

  mark(sessionId) {
    if (this.session.session_id === sessionId) this.link.setAttribute("aria-current", "page");
    else this.link.removeAttribute("aria-current");
  }

  /** Shows a field for the title. Enter and leaving it save, Escape does not. */
  edit() {
    const title = titleOf(this.session);
    const label = `New title for “${title}”`;
    const field = element("input", { "aria-label": label, maxlength: LONGEST, value: title, dir: "auto" });
    this.#form = element("form", {}, [field]);
    const close = (isSaved) => {
      if (this.#form === null) return;
      const form = this.#form;
      this.#form = null;
      form.replaceWith(this.link);
      const wanted = field.value.trim();
      if (isSaved && wanted && wanted !== title) this.#act.rename(this.session, wanted);
    };
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      close(true);
      this.link.focus();
    });
    field.addEventListener("blur", () => close(true));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close(false);
      this.link.focus();
    });
    this.link.replaceWith(this.#form);
    field.focus();
    field.select();
  }

  #makeLink(id) {
    const link = element("a", { href: addressOf(id) }, [this.#title, this.#facts]);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a tab of its own
      event.preventDefault();
      this.#act.open(id);
    });
    return link;
  }
}
