// Rooms over a WebSocket.

import { DOCUMENT } from "./decoders.js";
import {
  DecodeError, INTERRUPTED, Loss, REPLACED, StreamRefused, TooManyUnsent, asJSON, isRecord, parsed, readRefusal, shown,
} from "./errors.js";
import { frame, readValue } from "./events.js";
import { Reader, broken } from "./reading.js";
import { Connection, Failure, absolute, withParameter, withParameters } from "./requests.js";
import { after, readRetryAfter } from "./retries.js";
import { MAX_LENGTH } from "./sse.js";

/** @import { TailEvent } from "./events.js" */
/** @import { Drop, HeaderMap, ReaderOptions } from "./reading.js" */
/** @import { End } from "./sorting.js" */

/**
 * @typedef {object} OwnJoinOptions
 * @property {string | string[]} [protocols] WebSocket subprotocols.
 * @property {HeaderMap} [headers] Headers of the handshake. Browsers do not allow them.
 * @property {number} [maxQueued] The most events to hold for a slow reader, and messages to hold for a lost connection.
 */

/** @typedef {ReaderOptions & OwnJoinOptions} JoinOptions */

const MAX_QUEUED = 1000;
const POLICY_VIOLATION = 1008;
const REPLACED_CODE = 4409;
/** Seconds for a handshake. */
const HANDSHAKE = 10;

/** @typedef {{ text: string, resolve: (value: void) => void, reject: (error: Error) => void }} Unsent */

/**
 * Joins a room: `for await (const event of room)` reads it, and `room.send(message)` writes.
 *
 * The room is read while you iterate. After a lost connection, it goes on after the last event. A reset gives an event
 * `reset`, because a room goes on.
 *
 * @param {string | URL} url An address with http or ws, or a relative one.
 * @param {JoinOptions} [options]
 */
export function join(url, options = {}) {
  return new Room(url, options);
}

/** A room to read and to write, across any number of connections. Make one with `join`. */
export class Room extends Reader {
  /** @type {Socket | null} */
  #socket = null;
  /** @type {Unsent[]} */
  #unsent = [];
  /** @type {string[] | null} */
  #early = null; // what was sent on this connection before anything came from it
  #url;
  #options;
  #maxQueued;

  /** @param {string | URL} url @param {JoinOptions} options */
  constructor(url, options) {
    super({ ...options, onReset: options.onReset ?? "restart" }, { isSocket: true });
    this.#url = withParameters(absolute(url), options.params ?? {});
    if (globalThis.document && options.headers !== undefined) {
      throw new TypeError("expected no headers, because a browser sends none of yours with a WebSocket: use params");
    }
    this.#options = options;
    this.#maxQueued = options.maxQueued ?? MAX_QUEUED;
  }

  /**
   * Sends a message, which is any JSON value. While there is no connection, it waits for the next one. The promise is
   * fulfilled when the message is on its way. The message comes back as an event when it is in the room, and a refusal
   * as an event `refused`.
   *
   * @param {any} value
   * @returns {Promise<void>}
   */
  async send(value) {
    const text = asJSON(value);
    if (this.#socket?.isOpen) {
      this.#socket.checkBuffer();
      return this.#pass(this.#socket, text);
    }
    if (this.state === "ended" || this.state === "failed") throw this._lost(INTERRUPTED);
    this.#checkUnsent(text);
    return new Promise((resolve, reject) => void this.#unsent.push({ text, resolve, reject }));
  }

  /** @protected @override */
  async *_connect() {
    const socket = (this.#socket = new Socket(this.#nextUrl, this.#options, this.#maxQueued));
    if (!(await socket.opened)) return this.#judgeUnopened();
    this.#early = [];
    this._become("open");
    for (const { text, resolve } of this.#unsent.splice(0)) resolve(this.#pass(socket, text));
    yield [];
    for (;;) {
      const messages = await socket.read();
      if (messages === null) return this.#judgeClose(socket);
      const { given, end, said } = this._sorting.sort(...readMessages(messages));
      if (given.length === 0 && (end instanceof StreamRefused || isReset(end))) this.#takeBack();
      this.#early = null;
      if (given.length > 0) yield given;
      if (end !== null) return this._obey(end, said);
    }
  }

  /** @protected @override */
  _disconnect() {
    this.#socket?.close();
    this.#socket = null;
    if (this._left.signal.aborted) this.#rejectUnsent(this._lost(INTERRUPTED));
  }

  /** @protected @override */
  _settle(/** @type {Error | null} */ error) {
    this.#rejectUnsent(error ?? this._lost(INTERRUPTED));
  }

  #checkUnsent(/** @type {string} */ text) {
    const count = this.#unsent.length;
    if (count >= this.#maxQueued) throw new TooManyUnsent(count, `${this.#maxQueued} messages`);
    const length = this.#unsent.reduce((sum, unsent) => sum + unsent.text.length, text.length);
    if (length > MAX_LENGTH) throw new TooManyUnsent(length, `${MAX_LENGTH} characters`);
  }

  #pass(/** @type {Socket} */ socket, /** @type {string} */ text) {
    socket.send(text);
    if (this.#early !== null && this.#early.length < this.#maxQueued) this.#early.push(text);
  }

  /** Sends again what was sent on a connection whose server only refused it, and so has read nothing. */
  #takeBack() {
    const nobody = () => {};
    this.#unsent.unshift(...(this.#early ?? []).map((text) => ({ text, resolve: nobody, reject: nobody })));
  }

  #rejectUnsent(/** @type {Error} */ error) {
    for (const { reject } of this.#unsent.splice(0)) reject(error);
  }

  get #nextUrl() {
    const { token } = this._sorting.position;
    return token === null ? this.#url : withParameter(this.#url, "after", token);
  }

  /** Browsers hide why a handshake failed, so this asks for a document at the same address. */
  async #judgeUnopened() {
    const loss = new Loss("unsent", "no connection");
    if (this._left.signal.aborted) return { loss, ours: true };
    try {
      const url = withParameter(this.#nextUrl.replace(/^ws/, "http"), "stream", "false");
      const headers = new Headers(this.#options.headers);
      headers.set("accept", DOCUMENT);
      const { response, text } = await new Connection().ask(globalThis.fetch, url, { headers }, HANDSHAKE);
      if (response.ok) return { loss };
      const retryAfter = readRetryAfter(response.headers.get("retry-after"));
      return this._judgeRefusal(readRefusal(response.status, text), true, retryAfter);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return { loss };
    }
  }

  /** Decides what a close code means if no outcome came before it. */
  #judgeClose(/** @type {Socket} */ { code, reason, isOverfull }) {
    if (code === POLICY_VIOLATION) throw new StreamRefused(code, "policy_violation", reason || null);
    if (code === REPLACED_CODE) throw this._lost(REPLACED);
    // A server closes without an outcome only if the client has the end already.
    if (this._sorting.position.isAtEnd) return this._endWithoutEvents();
    return { ...broken(`the socket was closed with ${code} ${reason}`.trimEnd()), ours: isOverfull };
  }
}

function isReset(/** @type {End | null} */ end) {
  return end !== null && "kind" in end && end.kind === "reset";
}

/** @param {string[]} messages @returns {[TailEvent[], DecodeError | null]} */
function readMessages(messages) {
  /** @type {TailEvent[]} */
  const events = [];
  for (const text of messages) {
    const value = parsed(text);
    if (value === undefined) return [events, new DecodeError(`expected a message of JSON, but got ${shown(text)}`)];
    // The server's answers to what was sent have no id.
    const isAnswer = isRecord(value) && typeof value.event === "string" && value.id === undefined && "data" in value;
    events.push(isAnswer ? frame(value.data, value.event) : readValue(value));
  }
  return [events, null];
}

/**
 * A WebSocket whose messages are read.
 *
 * It cannot ask its server to wait. If the messages for a slow reader exceed a bound, it closes, and the reader comes
 * back for the rest.
 */
class Socket {
  code = 0;
  reason = "";
  isOverfull = false;
  /** @type {string[]} */
  #messages = [];
  #length = 0;
  #isClosed = false;
  #wake = () => {};
  #socket;
  #over = new AbortController();
  #maxQueued;

  /** @param {string} url @param {OwnJoinOptions} options @param {number} maxQueued */
  constructor(url, { protocols = [], headers }, maxQueued) {
    this.#maxQueued = maxQueued;
    const address = url.replace(/^http/, "ws");
    // Only Node takes headers.
    const options = headers === undefined ? protocols : /** @type {any} */ ({ protocols, headers });
    this.#socket = new WebSocket(address, options);
    const { signal } = this.#over;
    /** @type {Promise<boolean>} Whether the handshake succeeds. */
    this.opened = new Promise((resolve) => {
      this.#socket.addEventListener("open", () => resolve(true), { signal });
      signal.addEventListener("abort", () => resolve(false));
    });
    this.#socket.addEventListener("message", ({ data }) => this.#take(data), { signal });
    this.#socket.addEventListener("close", ({ code, reason }) => this.#end(code, reason), { signal });
    this.#socket.addEventListener("error", () => {});
    // A browser does not notice by itself that a connection is gone with its network.
    if (globalThis.document) addEventListener("offline", () => this.#leave(0, "the device is offline"), { signal });
    const cancel = after(HANDSHAKE, () => this.#leave(0, "the handshake took too long"));
    this.opened.then(cancel);
  }

  get isOpen() {
    return !this.#isClosed && this.#socket.readyState === WebSocket.OPEN;
  }

  /** Throws TooManyUnsent if the network does not take what was sent. */
  checkBuffer() {
    const { bufferedAmount } = this.#socket;
    if (bufferedAmount > MAX_LENGTH) throw new TooManyUnsent(bufferedAmount, `${MAX_LENGTH} bytes`);
  }

  send(/** @type {string} */ text) {
    this.#socket.send(text);
  }

  /** Returns the messages that have come, or null after the last one. */
  async read() {
    while (this.#messages.length === 0) {
      if (this.#isClosed) return null;
      await new Promise((/** @type {(value: void) => void} */ resolve) => (this.#wake = resolve));
    }
    this.#length = 0;
    return this.#messages.splice(0);
  }

  close() {
    this.#leave(0, "the reading was interrupted");
  }

  #take(/** @type {any} */ data) {
    this.#messages.push(String(data));
    this.#length += String(data).length;
    this.isOverfull = this.#messages.length >= this.#maxQueued || this.#length > MAX_LENGTH;
    if (this.isOverfull) this.#leave(0, "its reader is slow");
    this.#wake();
  }

  #leave(/** @type {number} */ code, /** @type {string} */ reason) {
    if (this.#isClosed) return;
    this.#socket.close();
    this.#end(code, reason);
  }

  #end(/** @type {number} */ code, /** @type {string} */ reason) {
    this.#isClosed = true;
    this.code = code;
    this.reason = reason;
    this.#over.abort();
    this.#wake();
  }
}
