// The session on the page: its history, and the reply that is being written.

import { Exchange } from "./exchange.js";
import { sameTurns, turnsOf } from "./history.js";
import { Messages } from "./messages.js";
import { announce, askForKey, closeNotice, notice } from "./notices.js";
import { page } from "./page.js";
import { problem } from "./words.js";

const REFUSED = {
  session_busy: "This session is still answering another message.",
  turn_not_last: "This session has changed in another tab.",
};
const KEPT = "Your message is kept below";
const ONCE = "you can safely send it again.";
const NEXT = "Your next message starts a new one.";
const FRESH = 10_000; // milliseconds after which the history is confirmed before a message is sent

export class Conversation {
  id = null; // of the session; null before its first message
  model = "model";
  #messages = new Messages({
    edit: (turn, text) => this.#replace(turn, text),
    again: (turn) => this.#replace(turn, turn.asked.text),
  });
  #composer;
  #protocol;
  #on;
  #exchange = null; // the reply that is read
  #earlier = null; // the token of what was said before the first message that is shown
  #phase = "loading"; // or loaded, or failed
  #isHasty = false; // whether a message was submitted before the history was there
  #beginning = null; // the number of what was shown when a message began to wait for the history to be confirmed
  #isStale = false; // whether something changed elsewhere while a reply was read
  #shown = 0; // counts what is shown, so that answers that come too late are not
  #confirmed = 0; // the time when the server confirmed the history

  /** `on` has the functions opened(session), begun(sessionId), left(), when no reply is read any more, ended(), gone(words, text) and failed(error, again). */
  constructor(composer, protocol, on) {
    this.#composer = composer;
    this.#protocol = protocol;
    this.#on = on;
    page.earlier.addEventListener("click", () => this.#trying(() => this.#showEarlier()));
  }

  /** Shows a session as the server has it, and continues its reply in progress. */
  async load(sessionId) {
    const turn = this.#empty(sessionId);
    try {
      const found = sessionId === null ? null : await turnsOf(sessionId);
      if (turn === this.#shown) this.#fill(found);
    } catch (error) {
      if (turn !== this.#shown) return;
      this.#phase = "failed";
      throw error;
    }
  }

  /** Shows what has changed elsewhere, or what could not be loaded before. A reply that is read here ends first. */
  async refresh() {
    if (this.#phase === "failed") return this.load(this.id).then(closeNotice);
    this.#isStale = this.#exchange !== null;
    if (this.id === null || this.#exchange || this.#phase === "loading") return undefined;
    const [turn, sessionId] = [this.#shown, this.id];
    const found = await turnsOf(sessionId);
    if (turn !== this.#shown || this.#exchange) return undefined;
    if (found === undefined) return this.deleted();
    this.#show(found);
    return this.#showEmpty();
  }

  /** Handles that the session was deleted elsewhere. */
  deleted() {
    this.#on.gone(`This session was deleted. ${NEXT}`, this.#composer.text);
  }

  /** Sends a message, after the history is known to be true. A key says that it may have been sent before. */
  async send(text, key = null) {
    this.#isHasty = this.#phase !== "loaded";
    if (this.#isHasty || this.#exchange) return;
    await this.#begin(() => {
      if (this.#exchange) return notice(`${REFUSED.session_busy} ${KEPT}.`);
      return this.#say(text, { key });
    });
  }

  stop() {
    this.#exchange?.stop();
  }

  /** Returns true if this page reads the stream, or has read it to its end. */
  knows(streamId) {
    return this.#messages.turns.some((turn) => turn.streamId === streamId);
  }

  /** Leaves the reply, which itself continues. */
  #leave() {
    this.#exchange?.leave();
    this.#turnTo(null);
  }

  /** Notes which reply is read now, or with null, how the last one ended. */
  #turnTo(exchange, state = null) {
    this.#exchange = exchange;
    if (exchange === null) this.#on.left();
    this.#composer.busy(exchange !== null, state);
  }

  // The history

  /** Clears the page for a session. Returns the number of what is shown now. */
  #empty(sessionId) {
    this.#shown += 1;
    this.#composer.open(sessionId);
    this.#leave();
    this.id = sessionId;
    this.#phase = "loading";
    this.#isHasty &&= this.#shown === 1; // a message for another session waits there
    this.#setEarlier(null);
    this.#messages.clear();
    this.#showEmpty();
    return this.#shown;
  }

  #fill(found) {
    if (found === undefined) {
      return this.#on.gone(`This session does not exist. It was deleted, or it belongs to another API key. ${NEXT}`);
    }
    this.#phase = "loaded";
    if (found !== null) this.#show(found);
    this.#showEmpty();
    if (this.#isHasty) this.#composer.submit();
    return undefined;
  }

  #show(session) {
    this.#confirmed = Date.now();
    this.#on.opened(session);
    const { turns } = session;
    const { turns: shown } = this.#messages;
    const start = turns.length ? shown.findIndex(({ streamId }) => streamId === turns[0].streamId) : 0;
    if (start < 0 || shown.length === 0) this.#setEarlier(session.earlier);
    const [from, same] = start < 0 ? [0, 0] : [start, sameTurns(shown.slice(start), turns)];
    this.#cut(from + same);
    for (const { text, streamId, answer } of turns.slice(same)) this.#messages.add(text, streamId, answer);
    const { last } = this.#messages;
    if (last?.reply.facts.state === "generating") this.#follow(last);
  }

  /** Removes all turns from a place on. A message that the user edits there goes to the field below. */
  #cut(index) {
    for (const { asked } of this.#messages.cut(index)) if (asked.edited !== null) this.#composer.restore(asked.edited);
  }

  async #showEarlier() {
    const turn = this.#shown;
    const session = await turnsOf(this.id, { before: this.#earlier });
    if (turn !== this.#shown || session === undefined) return;
    this.#messages.insert(session.turns);
    this.#setEarlier(session.earlier);
    if (this.#earlier === null) page.log.focus();
  }

  #setEarlier(token) {
    this.#earlier = token;
    page.earlier.hidden = token === null;
  }

  #showEmpty() {
    page.empty.hidden = this.#phase !== "loaded" || this.#messages.last !== undefined;
  }

  /** Asks whether the history that is shown is the server's, unless that is known. A tab may have been asleep. */
  async #confirm() {
    if (this.id === null || Date.now() - this.#confirmed < FRESH) return;
    const shown = this.#shown;
    const found = await turnsOf(this.id, { limit: 1, html: false });
    if (shown !== this.#shown) return;
    if (found === undefined) return this.deleted();
    const newest = found.turns.at(-1);
    const { last } = this.#messages;
    if (newest?.streamId !== last?.streamId || newest?.answer.facts.state !== last?.reply.facts.state) {
      await this.refresh();
    }
    this.#confirmed = Date.now();
  }

  // Replies

  #say(text, { key = null, replaced = null }) {
    const asked = { message: text, sessionId: this.id, replaced, key: key ?? newKey() };
    if (replaced === null) this.#composer.take(text, asked.key);
    const turn = this.#messages.add(text, null, { model: this.model, facts: { state: "generating" } });
    this.#messages.toEnd();
    this.#showEmpty();
    this.#read(turn, asked);
  }

  /**
   * Begins a turn, once the history is known to be true, unless another session is shown by then. Meanwhile, no other
   * turn can begin.
   */
  async #begin(say) {
    const shown = this.#shown;
    if (this.#beginning === shown) return;
    this.#beginning = shown;
    closeNotice();
    await this.#trying(async () => {
      await this.#confirm();
      if (shown === this.#shown) say();
    });
    if (this.#beginning === shown) this.#beginning = null;
  }

  /** Asks again in place of the last turn, with the same message or another. */
  async #replace(turn, text) {
    await this.#begin(() => {
      if (this.#exchange || turn !== this.#messages.last) return this.#refuse(turn, text);
      this.#messages.cut(-1);
      return this.#say(text, { replaced: turn });
    });
  }

  /** Says that a turn cannot be replaced any more, and keeps what the user has changed. */
  #refuse(turn, text) {
    const isEdited = text !== turn.asked.text;
    turn.asked.close();
    if (isEdited) this.#composer.restore(text);
    notice(`${REFUSED.turn_not_last}${isEdited ? " What you wrote is kept below." : ""}`);
  }

  #follow(turn) {
    turn.reply.reset();
    this.#read(turn, null);
  }

  async #read(turn, asked) {
    const shown = this.#shown;
    const exchange = new Exchange(turn, asked, this.#protocol, {
      begun: (info) => this.#begun(info, asked),
      stopping: (isStopping) => this.#composer.stopping(isStopping),
    });
    this.#turnTo(exchange);
    announce("Generating");
    const error = await exchange.run();
    if (this.#exchange !== exchange) return;
    this.#confirmed = Date.now();
    this.#turnTo(null, error ? null : turn.reply.facts.state);
    if (error && shown === this.#shown) this.#broken(error, turn, asked);
    else this.#on.ended();
    if (this.#isStale) this.#trying(() => this.refresh());
  }

  #begun({ session_id: sessionId }, asked) {
    if (this.id !== sessionId) {
      this.id = sessionId;
      this.#composer.move(sessionId);
    } else if (asked?.replaced === null) this.#composer.sent();
    this.#on.begun(sessionId);
  }

  /** Handles a reply that cannot be read, or a message that was refused. What the user wrote is kept. */
  #broken(error, turn, asked) {
    if (turn.streamId !== null) return this.#on.failed(error, () => this.load(this.id));
    const isRefused = error.status !== undefined;
    announce(isRefused ? "Not sent" : "Not known whether it was sent");
    this.#messages.cut(this.#messages.turns.indexOf(turn));
    if (asked.replaced) this.#putBack(error, asked, isRefused);
    else this.#restore(error, asked, isRefused);
    this.#showEmpty();
    // The connection's state says why the server does not answer, and the history is loaded when it does.
    return error.status === 404 ? this.deleted() : this.refresh().catch(() => {});
  }

  /** Puts the message back in its field. */
  #restore(error, { message, key }, isRefused) {
    const isAlone = this.#composer.restore(message, isRefused ? null : key);
    const again = () => this.#composer.submit();
    if (error.status === 401) askForKey(again);
    else if (isRefused) notice(`${refused(error)} ${KEPT}.`);
    else if (isAlone) notice(`${problem(error)} ${KEPT}; ${ONCE}`, { label: "Send again", act: again });
    else notice(`${problem(error)} ${KEPT}.`);
  }

  /** Puts the turn back that was not replaced, with the field in which it was edited. */
  #putBack(error, { message, replaced }, isRefused) {
    this.#messages.append(replaced);
    replaced.asked.focus();
    if (error.status === 401) return askForKey(() => this.#replace(replaced, message));
    if (!isRefused) return notice(`${problem(error)} It is not known whether a new reply has begun.`);
    return notice(`${refused(error)}${replaced.asked.edited === null ? "" : " What you wrote is kept."}`);
  }

  async #trying(what) {
    try {
      await what();
    } catch (error) {
      this.#on.failed(error, () => this.#trying(what));
    }
  }
}

function refused(error) {
  return REFUSED[error.code] ?? problem(error);
}

/** Returns 128 random bits. randomUUID exists on secure origins only. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
