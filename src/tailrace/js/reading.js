// Reading: what streams and rooms have in common.

import { FIELD_VALUE, isCursor } from "./cursors.js";
import {
  DecodeError, Loss, NOT_DEALT_WITH, REPLACED, StreamFailed, StreamLost, StreamRefused, StreamReset, UNAVAILABLE,
  isRecord, shown,
} from "./errors.js";
import { frame } from "./events.js";
import { Backoff, pause, whenBack } from "./retries.js";
import { Sorting } from "./sorting.js";

/** @import { LossKind } from "./errors.js" */
/** @import { Outcome, TailEvent } from "./events.js" */
/** @import { Retry } from "./retries.js" */
/** @import { End } from "./sorting.js" */

/** @typedef {"idle" | "connecting" | "open" | "waiting" | "ended" | "failed"} State */

/**
 * @typedef {object} StateChange
 * @property {State} state
 * @property {number} attempt The number of failures in a row.
 * @property {number | null} seconds The length of the wait, if the state is `waiting`.
 * @property {string | null} reason Why the client waits, or why it failed.
 * @property {LossKind | null} kind The kind of that reason, if a connection was lost: for words of your own.
 */

/** @typedef {Record<string, string>} HeaderMap */

/**
 * @typedef {object} ReaderOptions Options of `tail` and of `join`.
 * @property {string} [after] Begin after the event with this id.
 * @property {Record<string, any>} [params] Query parameters of the first request.
 * @property {"throw" | "restart"} [onReset] `throw` StreamReset, or `restart`: give an event `reset`, then the rest.
 * @property {Partial<Retry>} [retry]
 * @property {AbortSignal} [signal] Ends the reading. The stream itself goes on.
 * @property {(change: StateChange) => void} [onState]
 * @property {(degraded: boolean) => void} [onDegraded] Called with true when the server cannot reach its store, so that
 *   events may be late, and with false when that is over.
 * @property {(signal: AbortSignal) => Promise<void>} [wake] Ends a wait early. Default in browsers: the device is
 *   online again, or the page becomes visible.
 */

/**
 * @typedef {object} Drop The end of a connection whose stream may go on.
 * @property {Loss} loss
 * @property {number} [told] The exact seconds to wait, as the server told them.
 * @property {number} [atLeast] The least seconds to wait.
 * @property {boolean} [ours] True if the application ended the connection, which is not a failure.
 * @property {TailEvent} [event] An event for the application.
 */

/** Why a request that may start something is not repeated. */
export const UNKNOWN = "it is unknown whether the request has arrived";

/**
 * The common part of streams and rooms: the iteration, the state, and the decisions about ends.
 *
 * A reader reads only when you ask for an event, and holds at most one piece of a body.
 */
export class Reader {
  /** @type {State} */
  state = "idle";
  /** The outcome of the stream. Null before the end, or if the server does not tell. @type {Outcome | null} */
  outcome = null;
  /** @type {any} */
  #reason = null; // of the caller's signal
  /** @type {TailEvent[]} */
  #queue = [];
  #taken = 0; // from the queue
  /** @type {string | null} */
  #cursor;
  #isBusy = false;
  #batches;
  #forgetSignal;
  #onState;
  #onReset;
  #wake;
  /** @type {(() => void)[]} */
  #watchers = [];

  /** @param {ReaderOptions} options @param {{ allowGaps?: boolean, isSocket?: boolean }} kind */
  constructor(options, kind) {
    const { after = null, retry, signal, onState, onDegraded, onReset = "throw", wake } = options;
    if (after !== null && !FIELD_VALUE.test(after)) {
      throw new TypeError(`expected an id that a header can hold as after, but got ${shown(after)}`);
    }
    if (onReset !== "throw" && onReset !== "restart") {
      throw new TypeError(`expected "throw" or "restart" as onReset, but got ${shown(onReset)}`);
    }
    this.#onState = onState;
    this.#onReset = onReset;
    this.#wake = wake ?? (globalThis.document ? whenBack : undefined);
    this.#cursor = after;
    /** @protected */
    this._backoff = new Backoff(retry);
    /** @protected */
    this._sorting = new Sorting(after, this._backoff, kind, onDegraded);
    /** @protected */
    this._left = new AbortController();
    this.#batches = this.#follow();
    const leave = () => this.#leave(signal?.reason);
    signal?.addEventListener("abort", leave);
    this.#forgetSignal = () => signal?.removeEventListener("abort", leave);
    if (signal?.aborted) {
      this.#reason = signal.reason;
      this._left.abort();
    }
  }

  /** The id of the last event that you received. Pass it as `after` to continue later. @returns {string | null} */
  get cursor() {
    const isBehind = this.#taken < this.#queue.length || this._left.signal.aborted;
    return isBehind ? this.#cursor : this._sorting.position.token;
  }

  /** True while the server cannot reach its store. The stream goes on, but events may be late. */
  get degraded() {
    return this._sorting.degraded;
  }

  // Iteration

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<TailEvent, undefined>>} */
  async next() {
    this._keepPlace();
    while (this.#taken === this.#queue.length) {
      if (!(await this.#fill())) return { done: true, value: undefined };
    }
    return { done: false, value: this.#take() };
  }

  /** Leaves, when a `for await` does. @returns {Promise<IteratorResult<TailEvent, undefined>>} */
  async return() {
    this.close();
    return { done: true, value: undefined };
  }

  /** Connects, unless an iteration has. Throws the error if the server refuses the stream. */
  async open() {
    if (this.state === "idle") await this.#fill();
    return this;
  }

  /** Leaves the stream, which goes on without you. If someone waits for the next event, the iteration ends. */
  close() {
    this.#leave(null);
  }

  /** Reads to the end, and returns all events. After a reset, those before it are not among them. */
  async collect() {
    /** @type {TailEvent[]} */
    let events = [];
    for await (const event of this) {
      if (event.event === "reset" && this.#onReset === "restart") events = [];
      else events.push(event);
    }
    return events;
  }

  /** Reads to the end, and returns the text: strings as they are, any other data as a line of JSON. */
  async text() {
    const events = await this.collect();
    return events.map(({ data }) => (typeof data === "string" ? data : `${JSON.stringify(data)}\n`)).join("");
  }

  #take() {
    const event = this.#queue[this.#taken++];
    if (event.id !== null) this.#cursor = event.id;
    return event;
  }

  /** Gets more events, or none if the stream has opened. Returns false at the end. */
  async #fill() {
    if (this.#isBusy) throw new Error("expected one reader at a time, but another one waits for the next event");
    this.#isBusy = true;
    try {
      const { done, value } = await this.#batches.next();
      this.#queue = value ?? [];
      this.#taken = 0;
      if (done) this.#throwReason();
      return !done;
    } finally {
      this.#isBusy = false;
    }
  }

  /** Throws the reason of the caller's signal once, even if nobody waited for an event when it came. */
  #throwReason() {
    const reason = this.#reason;
    this.#reason = null;
    if (reason !== null) throw reason;
  }

  #leave(/** @type {any} */ reason) {
    if (this._left.signal.aborted || this.#isOver) return;
    this.#cursor = this.cursor;
    this.#reason = reason;
    this._left.abort();
    this._disconnect();
    // A reading that is under way notices this itself.
    if (!this.#isBusy) this.#batches.return();
    this.#queue = [];
    this.#taken = 0;
    this._become("ended");
  }

  // Following

  /** Follows the stream across connections. An empty batch means that the stream has opened. */
  async *#follow() {
    try {
      for (;;) {
        const drop = yield* this.#connectOnce();
        if (drop === null) break;
        if (drop.event !== undefined) yield [drop.event];
        await this.#wait(drop);
      }
    } catch (error) {
      if (!this._left.signal.aborted) throw this.#fail(error);
    }
    if (this._left.signal.aborted) return;
    this._settle(null);
    this._become("ended");
  }

  async *#connectOnce() {
    if (!this._left.signal.aborted) this._become("connecting");
    if (this._left.signal.aborted) return null; // `onState` may have left
    try {
      return yield* this._connect();
    } finally {
      this._disconnect();
    }
  }

  #fail(/** @type {any} */ error) {
    this._settle(error);
    this._become("failed", { reason: error?.message ?? String(error), kind: error?.kind });
    return error;
  }

  async #wait(/** @type {Drop} */ { loss, told, atLeast, ours }) {
    if (ours || this._left.signal.aborted) return;
    const delay = this._backoff.fail(told, atLeast);
    const attempt = this._backoff.failures;
    if (typeof delay === "string") throw new StreamLost(loss, this._sorting.position.token, attempt, delay);
    this._become("waiting", { seconds: delay, reason: String(loss), kind: loss.kind });
    // Nobody but the server may shorten a wait that it asked for.
    const mayWake = told === undefined && !atLeast;
    await pause(delay, this._left.signal, mayWake ? this.#wake : undefined);
  }

  /**
   * Reads one connection. Returns null if the stream is over.
   *
   * @protected
   * @returns {AsyncGenerator<TailEvent[], Drop | null, void>}
   */
  async *_connect() {
    return null;
  }

  /** Ends the connection, if there is one. @protected */
  _disconnect() {}

  /** Keeps the place of the last event that the application has received. @protected */
  _keepPlace() {}

  /** Notes that there is nothing more to read: the stream is over, or an error has ended the reading. @protected */
  _settle(/** @type {Error | null} */ error) {
    void error;
  }

  /** @protected @param {State} state @param {Partial<StateChange>} [details] */
  _become(state, { seconds = null, reason = null, kind = null } = {}) {
    if (this.#isOver) return; // a callback has left
    this.state = state;
    if (this.#isOver) this.#forgetSignal(); // it may live much longer
    for (const watcher of this.#watchers.splice(0)) watcher();
    this.#onState?.({ state, attempt: this._backoff.failures, seconds, reason, kind });
    if (state !== "open") this._sorting.degrade(false); // what a connection has told ends with it
  }

  get #isOver() {
    return this.state === "ended" || this.state === "failed";
  }

  /** Waits until the state changes. @protected @returns {Promise<void>} */
  _whenChanged() {
    return new Promise((resolve) => void this.#watchers.push(resolve));
  }

  // Ends

  /**
   * Acts on the end of a response, after the application has got everything before it.
   *
   * @protected
   * @param {End} end
   * @param {TailEvent | null} said
   * @returns {Drop | null}
   */
  _obey(end, said) {
    if (end instanceof StreamRefused) return this._judgeRefusal(end, true);
    if (end instanceof DecodeError) throw end;
    if (end.kind === "reset") return this._restart(end.reason, said?.id ?? null);
    if (said !== null && said.id !== null) this._sorting.position.move(said.id);
    if (end.kind === "farewell") return this.#bidFarewell(end.reason, end.retry);
    if (end.kind === "outcome") this._end(end, said);
    return null;
  }

  #bidFarewell(/** @type {string} */ reason, /** @type {number} */ retry) {
    if (reason === "replaced") throw this._lost(REPLACED);
    return { loss: new Loss("farewell", `the server said farewell (${reason})`), told: Math.max(0, retry) / 1000 };
  }

  /** @protected @param {Outcome} end @param {TailEvent | null} [said] */
  _end({ state, code, message, data }, said = null) {
    this.outcome = { state, code, message, data };
    if (state === "error") throw new StreamFailed(code, message, isRecord(said?.data) ? said.data : {});
  }

  /**
   * Continues from a reset's cursor if the caller wants that. A `reset` event voids the earlier events.
   *
   * @protected
   * @param {string} reason
   * @param {string | null} cursor
   * @returns {Drop}
   */
  _restart(reason, cursor) {
    if (this.#onReset === "throw") throw new StreamReset(reason, cursor);
    const told = this._sorting.gaveSinceReset ? 0 : undefined; // only the first reset in a row is no reason to wait
    this._sorting.restart(cursor);
    const loss = new Loss("reset", `the stream was reset (${reason})`);
    return { loss, told, event: frame({ reason }, "reset", cursor) };
  }

  /**
   * @protected
   * @param {StreamRefused} error
   * @param {boolean} mayRepeat
   * @param {number} [retryAfter]
   * @returns {Drop}
   */
  _judgeRefusal(error, mayRepeat, retryAfter) {
    const { status, code, members } = error;
    if (status === 410 && code === "reset") {
      return this._restart(String(members.reason), isCursor(members.cursor) ? members.cursor : null);
    }
    if (!UNAVAILABLE.has(status)) throw error;
    const loss = new Loss("unavailable", error.message);
    const isUntouched = NOT_DEALT_WITH.has(status);
    if (mayRepeat || (isUntouched && retryAfter !== undefined)) return { loss, atLeast: retryAfter };
    throw isUntouched ? error : this._lost(loss, UNKNOWN);
  }

  /**
   * Ends the stream, because the server has no more events. Throws StreamLost if none came since a reset.
   *
   * @protected
   */
  _endWithoutEvents() {
    if (!this._sorting.gaveSinceReset) {
      throw this._lost(new Loss("reset", "nothing is left of the stream after its reset"));
    }
    return null;
  }

  /** @protected @param {Loss} loss @param {string} [note] */
  _lost(loss, note) {
    return new StreamLost(loss, this._sorting.position.token, 0, note);
  }
}

/** @param {string} reason @returns {Drop} */
export function broken(reason) {
  return { loss: new Loss("broken", reason) };
}
