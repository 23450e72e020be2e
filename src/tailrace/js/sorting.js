// The frames of a stream, sorted into events and ends.

import { Position } from "./cursors.js";
import { DecodeError, Loss, StreamLost, StreamRefused, refusal } from "./errors.js";
import { DONE_MARK, ONLY_RETRY, RESERVED, outcome, readFailure, readNotice } from "./events.js";

/** @import { Notice, TailEvent } from "./events.js" */
/** @import { Backoff } from "./retries.js" */

/** @typedef {Notice | StreamRefused | DecodeError} End */

/** @typedef {{ given: TailEvent[], end: End | null, said: TailEvent | null }} Sorted */

/** The number of ids to remember, so that events that another server repeats are recognised. */
const KNOWN = 1000;

/** Sorts the frames of one stream, across all its connections, into events and ends. */
export class Sorting {
  /** The last event that was given. @type {TailEvent | null} */
  last = null;
  /** True if the next connection can go on after that event. */
  canGoOn = true;
  gaveSinceReset = true;
  /** True while the server cannot reach its store, as it has told on this connection. */
  degraded = false;
  /** @type {Position} */
  position;
  /** @type {Set<string>} */
  #known = new Set();
  /** @type {string | null} */
  #firstId = null;
  #isFresh = false; // true while all events of this response may be repetitions
  #gaveId = false; // true once this response has had an event with an id
  #isDocument = false;
  #backoff;
  #allowGaps;
  #isSocket;
  #onDegraded;

  /**
   * @param {string | null} after
   * @param {Backoff} backoff
   * @param {{ allowGaps?: boolean, isSocket?: boolean }} kind
   * @param {((degraded: boolean) => void)} [onDegraded]
   */
  constructor(after, backoff, { allowGaps = false, isSocket = false }, onDegraded) {
    this.position = new Position(after, isSocket);
    this.#backoff = backoff;
    this.#allowGaps = allowGaps;
    this.#isSocket = isSocket;
    this.#onDegraded = onDegraded;
    if (after !== null) this.#known.add(after);
  }

  /** True if the server tells how a stream ends. */
  get saysOutcomes() {
    return this.#isDocument || (this.position.givesCursors && this.position.token !== null);
  }

  /** Notes that a response begins, at a cursor if its server sends cursors. A document tells its outcome itself. */
  begin(/** @type {string | null} */ cursor, isDocument = false) {
    this.#isFresh = this.#known.size > 0;
    this.#gaveId = false;
    this.#isDocument = isDocument;
    if (cursor !== null) this.position.begin(cursor);
  }

  /** Forgets the earlier events, after a reset. */
  restart(/** @type {string | null} */ cursor) {
    this.position = new Position(cursor, true);
    this.canGoOn = true;
    this.gaveSinceReset = false;
  }

  /**
   * Returns the events to give, then the end of the response. `fault` is the decoder's error after the frames.
   *
   * @param {TailEvent[]} frames
   * @param {DecodeError | null} [fault]
   * @returns {Sorted}
   */
  sort(frames, fault = null) {
    if (this.#isFresh && !this.position.givesCursors) frames = this.#withoutKnown(frames);
    /** @type {Sorted} */
    const sorted = { given: [], end: fault, said: null };
    try {
      for (const frame of frames) if (this.#sortOne(frame, sorted)) break;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      sorted.end = error;
    }
    if (sorted.given.length > 0) this.#give(sorted.given);
    // OpenAI's API sends a failure as an event before the mark of the end.
    const failure = sorted.said?.data === DONE_MARK ? readFailure(this.last) : null;
    return failure === null ? sorted : { ...sorted, end: failure, said: null };
  }

  /** Sorts one frame. Returns true if it is the end. */
  #sortOne(/** @type {TailEvent} */ frame, /** @type {Sorted} */ sorted) {
    if (frame.retry !== null && this.#heedRetry(frame)) return false;
    const notice = frame.event === null && frame.data !== DONE_MARK ? null : this.#readNotice(frame);
    if (notice !== null) {
      if (!(notice instanceof StreamRefused) && notice.kind === "degraded") {
        this.degrade(notice.degraded);
        return false;
      }
      if (notice instanceof StreamRefused || notice.kind !== "dropped") {
        sorted.end = notice;
        sorted.said = frame;
        return true;
      }
      if (frame.id !== null) this.position.move(frame.id);
    } else if (frame.id !== null) {
      const place = this.position.advance(frame.id);
      if (place === "old") return false;
      if (place !== "new") return this.#endAt(place, frame, sorted);
    }
    sorted.given.push(frame);
    return false;
  }

  /** Notes whether the server can reach its store, and tells the application if it is news. */
  degrade(/** @type {boolean} */ degraded) {
    if (degraded === this.degraded) return;
    this.degraded = degraded;
    this.#onDegraded?.(degraded);
  }

  #endAt(/** @type {string} */ place, /** @type {TailEvent} */ frame, /** @type {Sorted} */ sorted) {
    if (place === "elsewhere") {
      sorted.end = { kind: "reset", reason: "epoch_changed" };
    } else {
      // This is not a notice, but the last event. Its data is the stream's result.
      sorted.given.push(frame);
      sorted.end = outcome("done", null, null, frame.data);
      sorted.said = frame;
    }
    return true;
  }

  #give(/** @type {TailEvent[]} */ given) {
    this.#backoff.succeed();
    this.gaveSinceReset = true;
    const before = given.at(-2) ?? this.last;
    const last = (this.last = given[given.length - 1]);
    if (this.position.givesCursors) {
      this.canGoOn = last.id !== null;
      return;
    }
    for (const { id } of given) if (id !== null) this.#remember(id);
    // If two events have the same id, the second one has no id of its own.
    if (last.id !== null) this.canGoOn = before === null || before.id !== last.id;
    else if (this.#gaveId || this.position.token === null) this.canGoOn = false;
  }

  #remember(/** @type {string} */ id) {
    this.#gaveId = true;
    this.#firstId ??= id;
    this.#known.delete(id);
    this.#known.add(id);
    if (this.#known.size > KNOWN) this.#known.delete(/** @type {string} */ (this.#known.values().next().value));
  }

  /**
   * Drops the first frames of a response that the client has already. For cursors, `Position` does that.
   *
   * Some servers begin with the last event that the client has, or always with their last few events.
   */
  #withoutKnown(/** @type {TailEvent[]} */ frames) {
    const { token } = this.position;
    /** @type {TailEvent[]} */
    const unknown = [];
    for (const [index, frame] of frames.entries()) {
      if (frame.id === null) {
        unknown.push(frame);
      } else if (!this.#known.has(frame.id)) {
        this.#isFresh = false;
        return unknown.concat(frames.slice(index));
      } else if (frame.id === this.#firstId && frame.id !== token && !this.#allowGaps) {
        const reason = `expected the server to go on after ${token}, but it began again`;
        throw new StreamLost(new Loss("broken", reason), token);
      }
    }
    return unknown;
  }

  /** Notes a delay. Returns true if the frame has nothing else. A farewell's delay counts only once. */
  #heedRetry(/** @type {TailEvent} */ { event, data, retry }) {
    if (event !== "farewell" && retry !== null) this.#backoff.heed(retry / 1000);
    return data === ONLY_RETRY;
  }

  /** Returns the notice in a frame, unless its server may use the name for something else. */
  #readNotice(/** @type {TailEvent} */ frame) {
    if (frame.data === DONE_MARK) return outcome("done");
    if (!RESERVED.has(/** @type {string} */ (frame.event))) return null;
    if (this.#isSocket && frame.id === null && frame.event === "error") return refusal(frame.data?.status, frame.data);
    return this.position.givesCursors || this.#isDocument ? readNotice(frame) : null;
  }
}
