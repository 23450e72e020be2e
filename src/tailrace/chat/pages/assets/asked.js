// One message of the user, which can be copied, and edited while it is the last.

import { copy } from "./clipboard.js";
import { element } from "./dom.js";
import { quietButton } from "./icons.js";

export class Asked {
  #said;
  #tools;
  #edit;
  #form = null; // while the message is edited

  /** `resend` is called with the text when the user has edited it. The field stays until the message is replaced. */
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

  /** The text in the field, if the user edits the message and has changed it. */
  get edited() {
    const text = this.#form?.querySelector("textarea").value;
    return text === undefined || text.trim() === "" || text === this.text ? null : text;
  }

  /** Gives the focus to the field, or to the button that opens it. */
  focus() {
    (this.#form?.querySelector("textarea") ?? this.#edit).focus();
  }

  /** Shows the message again in place of the field. */
  close() {
    this.#form?.replaceWith(this.#said);
    this.#form = null;
    this.#tools.hidden = false;
  }

  /** Shows a field in place of the text. */
  #open(resend) {
    const field = element("textarea", { "aria-label": "Edit your message", dir: "auto", rows: "2" }, [this.text]);
    const cancel = element("button", { type: "button" }, ["Cancel"]);
    const form = (this.#form = element("form", {}, [field, cancel, element("button", { class: "main" }, ["Send"])]));
    const leave = () => {
      this.close();
      this.#edit.focus();
    };
    cancel.addEventListener("click", leave);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      return field.value.trim() === "" ? field.focus() : resend(field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
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
