// A form whose answer is a stream. `tailrace.get_streaming_html` writes such a form. Your own works, too.

import { NotStoppable, StreamFailed, StreamLost, StreamRefused, StreamReset } from "./errors.js";
import { tail } from "./streams.js";

/** @import { TailEvent } from "./events.js" */
/** @import { TailOptions } from "./streams.js" */
/** @typedef {HTMLInputElement | HTMLTextAreaElement} Field */
/** @typedef {"idle" | "sending" | "receiving" | "waiting" | "stopping" | "done" | "stopped" | "failed"} State */

// Hardly more than layout, and without specificity, so that every rule of the page wins. A Content-Security-Policy that forbids
// style elements does not concern constructed sheets.
const LAYOUT = `
:where(output[name="answer"]:not([hidden])) { display: block; white-space: pre-wrap; overflow-wrap: anywhere; }
:where(.tailrace-form [aria-disabled="true"]) { opacity: 0.5; }
:where(.tailrace-form textarea) { box-sizing: border-box; display: block; width: 100%; max-width: 40rem; font: inherit; }
`;

/**
 * Send a form to `endpoint`, and show the answer as it arrives.
 *
 * The form has a field named `message`. Its outputs `status` and `answer` and its button `stop` are added if it has
 * none. With an attribute `form`, they may be anywhere on the page. The form's `data-state` is its State.
 *
 * @param {string} formId
 * @param {{ endpoint: string }} options
 */
export function streamForm(formId, { endpoint }) {
  const form = document.getElementById(formId);
  if (!(form instanceof HTMLFormElement)) {
    throw new TypeError(`expected a form with the id ${JSON.stringify(formId)}, but got ${form?.localName ?? "nothing"}`);
  }
  layOut();
  new Widget(form, endpoint).start();
}

class Widget {
  /** @type {Reading | null} */
  #reading = null;

  /** @param {HTMLFormElement} form @param {string} endpoint */
  constructor(form, endpoint) {
    this.form = form;
    this.endpoint = new URL(endpoint, document.baseURI).href;
    this.field = fieldOf(form);
    this.stopButton = partOf(form, HTMLButtonElement, "stop", newStopButton);
    this.status = partOf(form, HTMLOutputElement, "status", newStatus);
    this.answer = partOf(form, HTMLOutputElement, "answer", newAnswer);
    this.answer.role ??= "group"; // an output by itself announces each change
    this.sendButtons = elementsOf(form, HTMLButtonElement).filter((button) => button.type === "submit");
    this.place = new Place(`tailrace-form ${location.pathname} ${form.id} ${endpoint}`);
  }

  start() {
    this.form.addEventListener("submit", (event) => this.#submit(event));
    this.field.addEventListener("keydown", (event) => this.#press(/** @type {KeyboardEvent} */ (event)));
    this.stopButton.addEventListener("click", () => this.#reading?.stop());
    if (this.form.classList.contains("tailrace-form")) for (const button of this.sendButtons) button.disabled = false;
    this.show("idle", "");
    const left = this.place.read();
    if (left === null) return;
    // The page was left while an answer arrived. The stream's log still has all of it.
    this.field.value ||= left.message;
    this.#read({ address: left.address }, left.message);
  }

  /** Show a state, in words and as `data-state`. @param {State} state @param {string} words */
  show(state, words) {
    const isBusy = !["idle", "done", "stopped", "failed"].includes(state);
    this.form.dataset.state = state;
    if (this.status.value !== words) this.status.value = words;
    this.answer.ariaBusy = String(isBusy);
    // A disabled button would lose the keyboard's focus.
    for (const button of this.sendButtons) button.ariaDisabled = String(isBusy);
    if (!isBusy && document.activeElement === this.stopButton) this.field.focus({ preventScroll: true });
    this.stopButton.hidden = !isBusy;
  }

  /** Enter sends. Shift+Enter begins a line. @param {KeyboardEvent} event */
  #press(event) {
    // Safari ends a composition before the key that ended it, and gives that key the code 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.form.requestSubmit();
  }

  /** @param {SubmitEvent} event */
  #submit(event) {
    event.preventDefault();
    if (this.#reading === null) this.#read({ method: "POST", body: bodyOf(this.form, event) }, this.field.value);
    else this.status.value = "An answer is still arriving. Stop it before you send another message.";
  }

  /** @param {TailOptions} request @param {string} message */
  async #read(request, message) {
    this.#reading = new Reading(this, request, message);
    await this.#reading.run();
    this.#reading = null;
  }
}

/** One answer, from the request to its end. */
class Reading {
  #isStopping = false;
  #note = "";

  /** @param {Widget} widget @param {TailOptions} request @param {string} message */
  constructor(widget, request, message) {
    this.widget = widget;
    this.message = message;
    this.text = new LiveText(widget.answer);
    this.stream = tail(widget.endpoint, { ...request, onState: ({ state }) => this.#follow(state) });
  }

  async run() {
    this.widget.show("sending", this.stream.address ? "Loading the answer…" : "Sending…");
    try {
      for await (const event of this.stream) this.text.add(spelling(event));
      this.text.draw();
      this.#conclude();
    } catch (error) {
      this.text.draw();
      const isGone = this.stream.address !== null && error instanceof StreamRefused && error.status === 404;
      this.#endEarly("failed", `Failed: ${isGone ? "the server no longer has this answer." : reasonOf(error)}`);
    }
    this.widget.place.clear();
  }

  /** Stop the stream at its server. The second time, stop waiting for the server. */
  async stop() {
    if (this.#isStopping) return this.#leave("The server has not confirmed it.");
    this.#isStopping = true;
    this.widget.show("stopping", "Stopping… To stop waiting for the server, press Stop again.");
    try {
      // The answers of six forms may take all connections that a browser has for a server.
      await this.stream.stop({ reconnect: true });
    } catch (error) {
      this.#leave(error instanceof NotStoppable ? "The server may continue: it offers no way to stop." : reasonOf(error));
    }
  }

  /** @param {string} note */
  #leave(note) {
    this.#note = note;
    this.stream.close();
  }

  /** @param {string} state of the stream */
  #follow(state) {
    const { address } = this.stream;
    if (state === "open" && address !== null) this.widget.place.write({ address, message: this.message });
    if (this.#isStopping) return;
    if (state === "open") this.widget.show("receiving", "Receiving the answer…");
    if (state === "waiting") this.widget.show("waiting", "Connection lost. Reconnecting…");
  }

  #conclude() {
    const { outcome } = this.stream;
    if (outcome?.code === "stopped" || (outcome === null && this.#isStopping)) {
      this.#endEarly("stopped", `Stopped. ${this.#note}`);
    } else if (outcome === null || outcome.state === "done") {
      // Other servers tell no outcome. There, a body that is whole is all that a success can be.
      this.widget.show("done", this.text.isEmpty ? "Complete. The answer is empty." : "Complete.");
    } else {
      this.#endEarly("failed", `Interrupted: ${sentence(outcome.message || "the server ended the answer")}`);
    }
  }

  /** @param {State} state @param {string} words */
  #endEarly(state, words) {
    this.widget.show(state, this.text.isEmpty ? words.trim() : `${words.trim()} The answer is incomplete.`);
  }
}

/** Text that grows in an output, drawn once a frame. */
class LiveText {
  /** @type {string[]} */
  #pieces = [];
  #frame = 0;
  #node = new Text();

  /** @param {HTMLOutputElement} output */
  constructor(output) {
    this.output = output;
    output.replaceChildren(this.#node);
    output.hidden = true;
  }

  get isEmpty() {
    return this.#node.length === 0;
  }

  /** @param {string} piece */
  add(piece) {
    this.#pieces.push(piece);
    this.#frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#node.appendData(this.#pieces.join(""));
    this.#pieces = [];
    this.output.hidden = this.isEmpty;
  }
}

/** Where the answer of a form is, until it ended, so that a page that was left can show it again. */
class Place {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** @returns {{ address: string, message: string } | null} */
  read() {
    try {
      const { address, message } = JSON.parse(sessionStorage.getItem(this.name) ?? "{}");
      return /^https?:/.test(address) && typeof message === "string" ? { address, message } : null;
    } catch {
      return null; // the browser keeps nothing, or something else is kept under this name
    }
  }

  /** @param {{ address: string, message: string }} place */
  write(place) {
    try {
      sessionStorage.setItem(this.name, JSON.stringify(place));
    } catch {
      // Without storage, an answer ends with its page.
    }
  }

  clear() {
    try {
      sessionStorage.removeItem(this.name);
    } catch {
      // Without storage, there is nothing to clear.
    }
  }
}

// Words

/** Return an event as the wire for plain text spells it. @param {TailEvent} event */
function spelling({ event, data }) {
  if (typeof data !== "string") return `${JSON.stringify(data)}\n`;
  // Bytes that are not UTF-8 are base64.
  return event === "bytes" ? new TextDecoder().decode(Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0))) : data;
}

/** Say why a stream failed: in the server's words, if it has any. @param {unknown} error */
function reasonOf(error) {
  if (error instanceof StreamFailed) return sentence(error.detail || "the server has not said why");
  if (error instanceof StreamRefused) return sentence(error.detail || `the server refused with status ${error.status}`);
  if (error instanceof StreamReset) return "the server no longer has all of the answer.";
  if (error instanceof StreamLost) return sentence(error.reason);
  return sentence(error instanceof Error ? error.message : String(error));
}

/** @param {string} text */
function sentence(text) {
  const trimmed = text.trim();
  return /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

// The form

/** @param {HTMLFormElement} form @param {SubmitEvent} event */
function bodyOf(form, event) {
  const fields = new FormData(form, event.submitter);
  if (form.enctype === "multipart/form-data") return fields;
  return new URLSearchParams([...fields].map(([name, value]) => [name, value instanceof File ? value.name : value]));
}

/** @param {HTMLFormElement} form @returns {Field} */
function fieldOf(form) {
  const field = form.elements.namedItem("message");
  if (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement) return field;
  throw new TypeError(`expected the form ${JSON.stringify(form.id)} to have one field named message`);
}

/**
 * @template {Element} T
 * @param {HTMLFormElement} form
 * @param {new () => T} kind
 * @returns {T[]}
 */
function elementsOf(form, kind) {
  return /** @type {T[]} */ ([...form.elements].filter((element) => element instanceof kind));
}

/**
 * Return a form's part by its name, or add a new one at the form's end.
 *
 * @template {HTMLButtonElement | HTMLOutputElement} T
 * @param {HTMLFormElement} form
 * @param {new () => T} kind
 * @param {string} name
 * @param {() => T} make
 * @returns {T}
 */
function partOf(form, kind, name, make) {
  const found = elementsOf(form, kind).find((element) => element.name === name);
  if (found) return found;
  const made = make();
  made.name = name;
  form.append(made);
  return made;
}

function newStopButton() {
  return Object.assign(document.createElement("button"), { type: /** @type {const} */ ("button"), textContent: "Stop" });
}

function newStatus() {
  return Object.assign(document.createElement("output"), { role: "status" });
}

function newAnswer() {
  return Object.assign(document.createElement("output"), { ariaLabel: "Answer", dir: "auto" });
}

function layOut() {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(LAYOUT);
  document.adoptedStyleSheets.push(sheet);
}
