// One message of the user, which can be copied, and edited while it is the last.

import { copy } from "./clipboard.js";
import { element } from "./dom.js";
import { quietButton } from "./icons.js";

export class Asked {
  #said;
  #tools;
  #edit;

  /** `resend` is called with the text when the user has edited it. */
  constructor(text, resend) {
    this.text = text;
    this.#said = element("div", { class: "said", dir: "auto" }, [text]);
    const copying = quietButton("copy", "Copy", () => copy(this.text, copying));
    this.#edit = quietButton("rename", "Edit", () => this.#open(resend));
    this.#edit.classList.add("only-last");
    this.#tools = element("div", { class: "tools" }, [copying, this.#edit]);
    this.item = element("li", { class: "message user" }, [
      element("h2", { class: "unseen" }, ["You"]),
      this.#said,
      this.#tools,
    ]);
  }

  /** Shows a field in place of the text. */
  #open(resend) {
    const field = element("textarea", { "aria-label": "Edit your message", dir: "auto", rows: "2" }, [this.text]);
    const cancel = element("button", { type: "button" }, ["Cancel"]);
    const form = element("form", {}, [field, cancel, element("button", { class: "main" }, ["Send"])]);
    const close = () => {
      form.replaceWith(this.#said);
      this.#tools.hidden = false;
      this.#edit.focus();
    };
    cancel.addEventListener("click", close);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value;
      if (text.trim() === "") return field.focus();
      close();
      return resend(text);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.#said.replaceWith(form);
    this.#tools.hidden = true;
    field.focus();
    field.setSelectionRange(this.text.length, this.text.length);
  }
}
