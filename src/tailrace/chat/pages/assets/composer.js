// The field for a message: its draft, its keys, and what they do now.

import { draftOf, keepDraft } from "./drafts.js";
import { announce } from "./notices.js";
import { page } from "./page.js";

const USUAL = "Enter sends. Shift+Enter starts a new line.";
const BUSY = "Enter sends this when the reply ends.";
const QUEUED = "Your message is sent when the reply ends. Esc cancels that.";
const UNDONE = "Your message was not sent, because the reply is not complete. Enter sends it.";

export class Composer {
  #act;
  #sessionId = null;
  #key = null; // of a message that may have been sent
  #isBusy = false;
  #isQueued = false;

  /** `act` has the actions send(text, key) and stop(). */
  constructor(act) {
    this.#act = act;
    page.message.addEventListener("input", () => this.#changed());
    page.message.addEventListener("keydown", (event) => this.#press(event));
    page.composer.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    page.stop.addEventListener("click", () => {
      act.stop();
      page.message.focus();
    });
  }

  get text() {
    return page.message.value;
  }

  /** Shows the draft of a session. */
  open(sessionId) {
    const { text, key } = draftOf(sessionId);
    this.#sessionId = sessionId;
    this.#key = key;
    this.#isQueued = false;
    page.message.value = text;
    this.#hint();
  }

  /**
   * Puts a message that was not sent back, before what has been written since. Its key says that it may have been sent.
   * Returns whether the message is alone in the field, so that the key still goes with it.
   */
  restore(text, key = null) {
    const isAlone = this.text.trim() === "" || this.text === text;
    page.message.value = isAlone ? text : `${text}\n\n${this.text}`;
    this.#key = isAlone ? key : null;
    this.#keep();
    this.#hint();
    page.message.focus();
    return isAlone;
  }

  /** Notes that the session has an id now. What is written belongs to it. */
  move(sessionId) {
    keepDraft(this.#sessionId, "");
    this.#sessionId = sessionId;
    this.#keep();
  }

  /** Tells whether a reply is being written, and after that how it ended. */
  busy(isBusy, state = null) {
    this.#isBusy = isBusy;
    page.send.hidden = isBusy;
    page.stop.hidden = !isBusy;
    page.stop.disabled = false;
    page.stop.lastElementChild.textContent = "Stop";
    const queued = this.#isQueued && !isBusy;
    if (queued) this.#isQueued = false;
    this.#hint();
    if (queued && (state === "complete" || state === "stopped")) this.submit();
    else if (queued) this.#say(UNDONE);
  }

  /** Shows that the reply is being stopped. */
  stopping(isStopping) {
    page.stop.disabled = isStopping;
    page.stop.lastElementChild.textContent = isStopping ? "Stopping" : "Stop";
  }

  submit() {
    const text = this.text;
    if (text.trim() === "" || !page.key.hidden) return;
    if (this.#isBusy) this.#queue();
    else this.#act.send(text, this.#key);
  }

  /** Empties the field. The draft stays until the server has the message. An example leaves the draft where it is. */
  take(text, key) {
    page.message.focus();
    if (this.text !== text) return;
    keepDraft(this.#sessionId, this.text, key);
    page.message.value = "";
    this.#key = null;
    this.#hint();
  }

  /** Forgets the draft, because the server has the message. */
  sent() {
    this.#keep();
  }

  #queue() {
    this.#isQueued = true;
    this.#say(QUEUED);
  }

  #changed() {
    this.#key = null;
    this.#isQueued = false;
    this.#keep();
    this.#hint();
  }

  #keep() {
    keepDraft(this.#sessionId, this.text, this.#key);
  }

  #hint() {
    const isWaiting = this.#isBusy && this.text.trim() !== "";
    page.hint.textContent = isWaiting ? BUSY : USUAL;
    page.hint.classList.toggle("now", isWaiting);
  }

  #say(words) {
    page.hint.textContent = words;
    page.hint.classList.add("now");
    announce(words);
  }

  #press(event) {
    if (event.key === "Escape" && this.#isQueued) {
      this.#isQueued = false;
      announce("Not sent when the reply ends");
      this.#hint();
    }
    // While the user composes characters, Enter selects one of them. Safari reports this only by the key code 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.submit();
  }
}
