/**
 * Follow streams that survive the network, in browsers and in Node.
 *
 *     import { tail } from "./tailrace.js";
 *
 *     for await (const event of tail("/letters")) console.log(event.data);
 *
 * `tail` reads a stream over HTTP, and `join` reads and writes a room over a WebSocket. Both come back after a lost
 * connection and go on after the last event, without a gap and without a duplicate. docs/protocol.md specifies what
 * goes over the network.
 *
 * The file reads from top to bottom: types, errors, cursors, decoders, events and ends, refusals, addresses, retries,
 * reading, streams, rooms.
 *
 * @module tailrace
 */

// Types

/**
 * @typedef {object} TailEvent
 * @property {any} data
 * @property {string | null} event The event's name.
 * @property {string | null} id The cursor after this event, or another server's id.
 * @property {number | null} retry Milliseconds that the server wants a client to wait before it reconnects.
 */

/** @typedef {"idle" | "connecting" | "open" | "waiting" | "ended" | "failed"} State */

/**
 * @typedef {object} StateChange
 * @property {State} state
 * @property {number} attempt The number of failures in a row.
 * @property {number | null} seconds The length of the wait, if the state is `waiting`.
 * @property {string | null} reason Why the client waits, or why it failed.
 * @property {LossKind | null} kind The kind of that reason, if a connection was lost: for words of your own.
 */

/**
 * @typedef {object} Outcome
 * @property {"done" | "cancelled" | "error"} state
 * @property {string | null} code
 * @property {string | null} message
 * @property {any} data The value of the whole stream, such as its statistics.
 */

/**
 * @typedef {object} Retry The budget of failures between two new events.
 * @property {number} limit Failures in a row.
 * @property {number} base Seconds: a wait is a random time up to this, doubled with each failure.
 * @property {number} cap Seconds: the bound for that doubling.
 * @property {number} longest Seconds that a server may ask for. After a longer Retry-After, the client gives up.
 * @property {number} patience Seconds for all attempts together.
 */

/**
 * @typedef {object} Timeouts Seconds.
 * @property {number} head Until the head of a response is complete.
 * @property {number} idle Without any bytes. The server's pings count.
 * @property {number} event Without a new event. Pings do not count.
 */

/** @typedef {{ number: number, bytes: number, total: number }} Piece A piece of a body, and the bytes of all so far. */

/** @typedef {Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem">} Store */

/** @typedef {Record<string, string>} HeaderMap */

/**
 * @typedef {object} ReaderOptions Options of `tail` and of `join`.
 * @property {string} [after] Begin after the event with this id.
 * @property {Record<string, any>} [params] Query parameters of the first request.
 * @property {"throw" | "restart"} [onReset] `throw` StreamReset, or `restart`: give an event `reset`, then the rest.
 * @property {Partial<Retry>} [retry]
 * @property {AbortSignal} [signal] Ends the reading. The stream itself goes on.
 * @property {(change: StateChange) => void} [onState]
 * @property {(signal: AbortSignal) => Promise<void>} [wake] Ends a wait early. Default in browsers: the device is
 *   online again, or the page becomes visible.
 */

/**
 * @typedef {object} OwnTailOptions
 * @property {string} [method] POST if there is a body, otherwise GET.
 * @property {HeaderMap | (() => HeaderMap | Promise<HeaderMap>)} [headers] A function is called before each request.
 * @property {any} [json] A body to encode as JSON.
 * @property {BodyInit} [body] Any other body that can be sent several times.
 * @property {string} [accept]
 * @property {string | boolean} [idempotencyKey] A name for the request, so that repeating it starts nothing twice. True
 *   makes a new one.
 * @property {string} [address] The stream's own address, if you know it. The first request resumes there.
 * @property {string} [saveAs] Keep the stream's place under this name, so that a reload of the page goes on.
 * @property {Store} [storage] Where to keep it. Default: sessionStorage.
 * @property {boolean} [takeover] After a lost connection, take its place, if the stream has one reader at a time.
 * @property {boolean} [allowGaps] Reconnect even if events have no ids, so that some may be missed or repeated.
 * @property {Partial<Timeouts>} [timeouts]
 * @property {number} [maxLength] The most characters of one event.
 * @property {(response: Response) => void} [onResponse] Called with each response, before its body is read.
 * @property {(text: string, piece: Piece) => void} [onLine] Called with each line of NDJSON, or each block of SSE,
 *   as it came, and with the piece that completed it.
 * @property {typeof globalThis.fetch} [fetch]
 */

/** @typedef {ReaderOptions & OwnTailOptions} TailOptions */

/**
 * @typedef {object} OwnJoinOptions
 * @property {string | string[]} [protocols] WebSocket subprotocols.
 * @property {HeaderMap} [headers] Headers of the handshake. Browsers do not allow them.
 * @property {number} [maxQueued] The most events to hold for a slow reader, and messages to hold for a lost connection.
 */

/** @typedef {ReaderOptions & OwnJoinOptions} JoinOptions */

/**
 * @typedef {{ kind: "outcome" } & Outcome | { kind: "reset", reason: string }
 *   | { kind: "farewell", reason: string, retry: number } | { kind: "dropped" }} Notice
 */

/** @typedef {Notice | StreamRefused | DecodeError} End */

/** @typedef {{ given: TailEvent[], end: End | null, said: TailEvent | null }} Sorted */

/**
 * @typedef {object} Drop The end of a connection whose stream may go on.
 * @property {Loss} loss
 * @property {number} [told] The exact seconds to wait, as the server told them.
 * @property {number} [atLeast] The least seconds to wait.
 * @property {boolean} [ours] True if the application ended the connection, which is no failure.
 */

/** @typedef {{ given: TailEvent[], drop: Drop | null }} Verdict */

/** @typedef {{ feed(bytes: Uint8Array): TailEvent[], close(): TailEvent[] }} Decoder */

// Errors

/** The base class of all errors here. */
export class TailraceError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** Bytes that are not what their media type promises. `before` are the events in front of them. */
export class DecodeError extends TailraceError {
  /** @type {TailEvent[]} */
  before = [];
}

/** An event beyond the decoder's bound. */
export class FrameTooLarge extends DecodeError {
  /**
   * @param {number} limit
   * @param {number} size
   */
  constructor(limit, size) {
    super(`expected a frame of at most ${limit} characters, but got at least ${size}`);
    this.limit = limit;
    this.size = size;
  }
}

/** Bytes that stop inside an event. */
export class Truncated extends DecodeError {}

/** The base class for failures between a client and its server. */
export class ClientError extends TailraceError {}

/** The stream ended as `error`. `members` is all data of the server's error. */
export class StreamFailed extends ClientError {
  /**
   * @param {string | null} code
   * @param {string | null} message
   * @param {Record<string, any>} [members]
   */
  constructor(code, message, members = {}) {
    super(`the stream failed: ${inOneLine(message ?? "no message")} (${inOneLine(code ?? "no code")})`);
    this.code = code;
    this.detail = message;
    this.members = members;
  }
}

/** The stream cannot be continued: discard what you read from it. The server's remaining events begin at `cursor`. */
export class StreamReset extends ClientError {
  /**
   * @param {string} reason
   * @param {string | null} cursor
   */
  constructor(reason, cursor) {
    super(`the stream was reset (${inOneLine(reason)}); go on from ${cursor ?? "its beginning"}`);
    this.reason = reason;
    this.cursor = cursor;
  }
}

/** The client has given up, after `attempts` failures in a row. Another client may continue from `cursor`. */
export class StreamLost extends ClientError {
  /**
   * @param {Loss} loss
   * @param {string | null} [cursor]
   * @param {number} [attempts]
   * @param {string} [note]
   */
  constructor(loss, cursor = null, attempts = 0, note = "") {
    const reason = note ? `${loss}; ${note}` : String(loss);
    super(`the stream is lost${attempts > 1 ? ` after ${attempts} failures in a row` : ""}: ${inOneLine(reason)}`);
    this.loss = loss;
    this.kind = loss.kind;
    this.reason = reason;
    this.cursor = cursor;
    this.attempts = attempts;
    this.note = note;
  }
}

/** The server refuses the request. `code` and `detail` are the server's; `members` is all data of its answer. */
export class StreamRefused extends ClientError {
  /**
   * @param {number} status The HTTP status, or the close code of a socket.
   * @param {string | null} [code]
   * @param {string | null} [detail]
   * @param {Record<string, any>} [members]
   */
  constructor(status, code = null, detail = null, members = {}) {
    const reason = `${code ? ` (${inOneLine(code)})` : ""}${detail ? `: ${inOneLine(detail)}` : ""}`;
    super(`the server refused with ${status}${reason}`);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.members = members;
  }
}

/** A successful response with a media type that cannot carry events. */
export class NotAStream extends ClientError {
  /**
   * @param {string} mediaType
   * @param {string} expected
   */
  constructor(mediaType, expected) {
    super(`expected a stream (${expected}), but got ${inOneLine(mediaType.slice(0, 80)) || "no media type"}`);
    this.mediaType = mediaType;
    this.expected = expected;
  }
}

/** The server has named no address at which to stop the stream. */
export class NotStoppable extends ClientError {
  constructor() {
    super("expected a response with a Link rel=stop, but the stream has none: close it instead");
  }
}

/** So much waits to be sent to a room that no more is taken. Send it again later. */
export class TooManyUnsent extends ClientError {
  /**
   * @param {number} unsent
   * @param {string} bound
   */
  constructor(unsent, bound) {
    super(`expected at most ${bound} to wait to be sent, but got ${unsent}`);
    this.unsent = unsent;
    this.bound = bound;
  }
}

/**
 * @typedef {"unsent" | "broken" | "silent" | "unavailable" | "farewell" | "replaced" | "reset" | "stalled"
 *   | "misled"} LossKind
 */

/** The reason why a connection is lost. */
export class Loss {
  /**
   * @param {LossKind} kind
   * @param {string} reason
   * @param {string} [detail] Another library's message.
   */
  constructor(kind, reason, detail = "") {
    this.kind = kind;
    this.reason = reason;
    this.detail = detail;
  }

  toString() {
    return this.detail ? `${this.reason}: ${this.detail}` : this.reason;
  }
}

const LONGEST_MESSAGE = 300;

/** Returns a server's message as one printable line. @param {string} said */
function inOneLine(said) {
  const words = said
    .slice(0, 2 * LONGEST_MESSAGE)
    .replace(/[\p{C}\s]+/gu, " ")
    .trim();
  return words.length <= LONGEST_MESSAGE ? words : `${words.slice(0, LONGEST_MESSAGE)}…`;
}

/** Returns any value for an error's text. @param {any} value */
function shown(value) {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? String(value))).slice(0, 80);
}

// Cursors

const CURSOR = /^([A-Za-z0-9_~-]{1,128}\.[A-Za-z0-9_-]{1,32}\.)(0|[1-9][0-9]{0,14})(?:~[A-Za-z0-9_-]{4,8})?(\.end)?$/;

/** @param {any} token */
function isCursor(token) {
  return typeof token === "string" && CURSOR.test(token);
}

/** Returns the offset in a cursor that is `stem` and plain digits, or -1. It runs for every event. */
function offsetIn(/** @type {string} */ token, /** @type {string} */ stem) {
  const digits = token.length - stem.length;
  if (stem === "" || digits < 1 || digits > 15 || !token.startsWith(stem)) return -1;
  let offset = 0;
  for (let index = stem.length; index < token.length; index++) {
    const digit = token.charCodeAt(index) - 48;
    if (digit < 0 || digit > 9) return -1;
    offset = offset * 10 + digit;
  }
  return offset;
}

// The first and the last character are no space (RFC 9110, section 5.5).
const FIELD_VALUE = /^[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?$/;

/**
 * The id of the last event, from any server. Only cursors have an order. An id is a cursor only if the server sends
 * cursors, because other servers' ids may look like one.
 */
class Position {
  #stem = "";
  #offset = -1;

  /**
   * @param {string | null} token
   * @param {boolean} givesCursors
   */
  constructor(token, givesCursors) {
    this.token = token;
    this.givesCursors = givesCursors;
    if (token !== null) this.move(token);
  }

  /** True if the last cursor is that of the end. */
  get isAtEnd() {
    return this.givesCursors && isCursor(this.token) && this.token?.endsWith(".end") === true;
  }

  /** Notes that a response begins at a cursor. This sets the position only if there is none yet. */
  begin(/** @type {string} */ cursor) {
    this.givesCursors = true;
    this.move(this.token ?? cursor);
  }

  /** Moves to an id, whether it is before or after the current one. */
  move(/** @type {string} */ token) {
    this.token = token;
    const [, stem = "", offset = "-1"] = (this.givesCursors && CURSOR.exec(token)) || [];
    this.#stem = stem;
    this.#offset = Number(offset);
  }

  /**
   * Advances to an event's id, and tells whether the event is `new`. It is `old` if it was received before,
   * `elsewhere` if it belongs to another stream, and `last` if its cursor is that of the end.
   *
   * @param {string} token
   */
  advance(token) {
    if (!this.givesCursors) {
      this.token = token;
      return "new";
    }
    const offset = offsetIn(token, this.#stem);
    if (offset < 0) return this.#jump(token);
    if (offset <= this.#offset) return "old";
    this.#offset = offset;
    this.token = token;
    return "new";
  }

  #jump(/** @type {string} */ token) {
    const [, stem, , end] = CURSOR.exec(token) ?? [];
    if (stem !== undefined && this.#stem !== "" && stem !== this.#stem) return "elsewhere";
    this.move(token);
    return end === undefined ? "new" : "last";
  }
}

// Decoders: bytes in, events out, whatever pieces the bytes arrive in

const MAX_LENGTH = 8 << 20;
const MAX_DOCUMENT = 64 << 20;
const SHORT = 512;
const LINE_FEED = 10;
const LETTER_D = 100;
const LETTER_I = 105;

/** The data of a block with only `retry`. No JSON text becomes this. */
const ONLY_RETRY = undefined;

/** The data that stands for OpenAI's `[DONE]`. */
const DONE_MARK = Object.freeze({ done: true });

/** Marks the characters with which JSON begins. A failed attempt to read JSON costs more than all other decoding. */
const BEGINS_JSON = new Uint8Array(128);
for (const character of '{["-0123456789tfn \t\n') BEGINS_JSON[character.charCodeAt(0)] = 1;

/**
 * Reads the events of any server (https://html.spec.whatwg.org/multipage/server-sent-events.html). Data that is no JSON
 * is text.
 */
export class SSEDecoder {
  #utf8 = new TextDecoder("utf-8", { ignoreBOM: true }); // Node would skip each byte order mark, not only the first
  #rest = ""; // the beginning of a line
  #isAtStart = true;
  #isCut = false; // true if the last character of the last piece may go on
  #isAfterCR = false;
  /** @type {string | null} */
  #data = null;
  /** @type {string | null} */
  #event = null;
  /** @type {string | null} */
  #id = null;
  /** @type {number | null} */
  #retry = null;
  #size = 0; // of the lines of this event so far
  #maxLength;
  #read;
  #marks;

  /**
   * @param {object} [options]
   * @param {number} [options.maxLength] The most characters of one event.
   * @param {boolean} [options.json] Whether to read data as JSON. If not, it is text.
   * @param {Map<string, any>} [options.marks] Values of texts that are no JSON.
   */
  constructor({ maxLength = MAX_LENGTH, json = true, marks = new Map() } = {}) {
    this.#maxLength = maxLength;
    this.#read = json ? readJSON : readText;
    this.#marks = marks;
  }

  /**
   * Returns the events that these bytes complete.
   *
   * @param {Uint8Array} bytes
   */
  feed(bytes) {
    let text = this.#decode(bytes);
    if (this.#isAtStart && text !== "") {
      this.#isAtStart = false;
      if (text.startsWith("\ufeff")) text = text.slice(1);
    }
    if (this.#isAfterCR || text.includes("\r")) text = this.#unifyLineEnds(text);
    return this.#readLines(text);
  }

  /** Returns no events: one without its blank line is dropped, as the specification says. */
  close() {
    return /** @type {TailEvent[]} */ ([]);
  }

  /** Decodes a piece. While no character is cut, this needs no state, and takes half of the time. */
  #decode(/** @type {Uint8Array} */ bytes) {
    if (bytes.length === 0) return "";
    const wasCut = this.#isCut;
    this.#isCut = bytes[bytes.length - 1] >= 0x80;
    return wasCut || this.#isCut ? this.#utf8.decode(bytes, { stream: true }) : this.#utf8.decode(bytes);
  }

  #unifyLineEnds(/** @type {string} */ text) {
    if (text === "") return text;
    if (this.#isAfterCR && text.startsWith("\n")) text = text.slice(1);
    this.#isAfterCR = text.endsWith("\r");
    return text.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
  }

  #readLines(/** @type {string} */ text) {
    /** @type {TailEvent[]} */
    const events = [];
    let start = 0;
    try {
      if (this.#rest !== "" && text.includes("\n")) {
        if (text.length < SHORT) text = this.#rest + text;
        else start = this.#readFirstLine(text);
        this.#rest = "";
      }
      if (this.#size === 0) start = this.#readBlocks(text, start, events);
      for (let end; (end = text.indexOf("\n", start)) >= 0; ) {
        if (end > start) this.#readLine(text, start, end);
        else this.#endBlock(events);
        start = end > start ? end + 1 : this.#readBlocks(text, end + 1, events);
      }
      this.#keepRest(start === 0 ? text : text.slice(start));
    } catch (error) {
      throw error instanceof DecodeError ? withBefore(error, events) : error;
    }
    return events;
  }

  /** Reads the line that began in an earlier piece. A joined string would make each further access slower. */
  #readFirstLine(/** @type {string} */ text) {
    const end = text.indexOf("\n");
    const line = this.#rest + text.slice(0, end);
    this.#readLine(line, 0, line.length);
    return end + 1;
  }

  #readBlocks(/** @type {string} */ text, /** @type {number} */ start, /** @type {TailEvent[]} */ events) {
    const end = readUsual(text, start, events, this.#id, this.#maxLength, this.#read, this.#marks);
    if (end > start) this.#id = events[events.length - 1].id;
    return end;
  }

  /** Keeps the beginning of a line. Of a comment, its colon is enough. */
  #keepRest(/** @type {string} */ text) {
    if (text === "") return;
    this.#rest = this.#rest.startsWith(":") ? ":" : this.#rest + text;
    if (this.#rest.startsWith(":")) this.#rest = ":";
    this.#checkSize(this.#size + this.#rest.length);
  }

  #readLine(/** @type {string} */ text, /** @type {number} */ start, /** @type {number} */ end) {
    if (text.startsWith("data: ", start)) this.#addData(text.slice(start + 6, end));
    else if (text.startsWith("id: ", start)) this.#setId(text.slice(start + 4, end));
    else if (text.startsWith(":", start)) return;
    else this.#readField(text.slice(start, end));
    this.#size += end + 1 - start;
    this.#checkSize(this.#size);
  }

  #readField(/** @type {string} */ line) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line.startsWith(" ", colon + 1) ? colon + 2 : colon + 1);
    if (field === "data") this.#addData(value);
    else if (field === "id") this.#setId(value);
    else if (field === "event") this.#event = value || null;
    // JavaScript holds 15 digits exactly.
    else if (field === "retry" && /^[0-9]{1,15}$/.test(value)) this.#retry = Number(value);
  }

  #addData(/** @type {string} */ value) {
    this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
  }

  #setId(/** @type {string} */ value) {
    if (!value.includes("\0")) this.#id = value;
  }

  #endBlock(/** @type {TailEvent[]} */ events) {
    if (this.#data !== null) {
      events.push({ data: this.#read(this.#data, this.#marks), event: this.#event, id: this.#id, retry: this.#retry });
    } else if (this.#retry !== null) {
      events.push({ data: ONLY_RETRY, event: null, id: this.#id, retry: this.#retry });
    }
    this.#data = this.#event = this.#retry = null;
    this.#size = 0;
  }

  #checkSize(/** @type {number} */ size) {
    if (size > this.#maxLength) throw new FrameTooLarge(this.#maxLength, size);
  }
}

/**
 * Reads blocks as most servers write them: at most an id, at most a name, and one line of data. Returns the index of
 * the first block that is none of these, or not whole. This is twice as fast as reading line by line.
 *
 * @param {string} text
 * @param {number} start
 * @param {TailEvent[]} events
 * @param {string | null} last The last id so far.
 * @param {number} maxLength
 * @param {(text: string, marks: Map<string, any>) => any} read
 * @param {Map<string, any>} marks
 */
function readUsual(text, start, events, last, maxLength, read, marks) {
  if (text.includes("\0")) return start;
  for (;;) {
    let at = start;
    let id = last;
    let event = null;
    const first = text.charCodeAt(at); // comparing it costs less than a search that fails
    if (first === LETTER_I && text.startsWith("id: ", at)) {
      const end = text.indexOf("\n", at);
      if (end < 0) return start;
      id = text.slice(at + 4, end);
      at = end + 1;
    }
    if (first !== LETTER_D && text.startsWith("event: ", at)) {
      const end = text.indexOf("\n", at);
      if (end < 0) return start;
      event = text.slice(at + 7, end) || null;
      at = end + 1;
    }
    if (!text.startsWith("data: ", at)) return start;
    const end = text.indexOf("\n", at);
    if (end < 0 || text.charCodeAt(end + 1) !== LINE_FEED || end - start >= maxLength) return start;
    events.push({ data: read(text.slice(at + 6, end), marks), event, id, retry: null });
    last = id;
    start = end + 2;
  }
}

/**
 * Returns the value of a JSON text, or what a mark stands for, or the text itself.
 *
 * @param {string} text
 * @param {Map<string, any>} marks
 */
function readJSON(text, marks) {
  if (BEGINS_JSON[text.charCodeAt(0)]) {
    try {
      return JSON.parse(text);
    } catch {
      // It is a text.
    }
  }
  return marks.has(text) ? marks.get(text) : text;
}

/** @param {string} text */
function readText(text) {
  return text;
}

/** Reads lines of JSON. Blank ones are skipped. */
export class LinesDecoder {
  #utf8 = new TextDecoder();
  #rest = ""; // the beginning of a line
  #maxLength;
  #read;

  /**
   * @param {object} [options]
   * @param {number} [options.maxLength] The most characters of one line.
   * @param {boolean} [options.cursors] Whether the server sends cursors, so that lines may be tailrace's envelopes. If
   *   not, each value is the data of an event.
   */
  constructor({ maxLength = MAX_LENGTH, cursors = true } = {}) {
    this.#maxLength = maxLength;
    this.#read = cursors ? readValue : bare;
  }

  /**
   * Returns the events that these bytes complete.
   *
   * @param {Uint8Array} bytes
   */
  feed(bytes) {
    const lines = this.#utf8.decode(bytes, { stream: true }).split("\n");
    lines[0] = this.#rest + lines[0];
    this.#rest = /** @type {string} */ (lines.pop());
    const events = this.#readLines(lines);
    if (this.#rest.length > this.#maxLength) throw this.#tooLarge(this.#rest, events);
    return events;
  }

  /** Returns the event of a last line without a line end. */
  close() {
    const rest = this.#rest + this.#utf8.decode();
    this.#rest = "";
    if (rest.trim() === "") return [];
    try {
      return [this.#read(JSON.parse(rest))];
    } catch (error) {
      throw new Truncated(`expected a whole line of JSON at the end, but got ${shown(rest)}: ${error}`);
    }
  }

  #readLines(/** @type {string[]} */ lines) {
    /** @type {TailEvent[]} */
    const events = [];
    for (const line of lines) {
      if (line.length > this.#maxLength) throw this.#tooLarge(line, events);
      if (line !== "" && line.trim() !== "") events.push(this.#readLine(line, events));
    }
    return events;
  }

  #readLine(/** @type {string} */ line, /** @type {TailEvent[]} */ before) {
    try {
      return this.#read(JSON.parse(line));
    } catch (error) {
      throw withBefore(new DecodeError(`expected a line of JSON, but got ${shown(line)}: ${error}`), before);
    }
  }

  #tooLarge(/** @type {string} */ line, /** @type {TailEvent[]} */ before) {
    return withBefore(new FrameTooLarge(this.#maxLength, line.length), before);
  }
}

/** Reads pieces of text, never cut inside a character. */
class PiecesDecoder {
  #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  feed(/** @type {Uint8Array} */ bytes) {
    try {
      return this.#give(this.#utf8.decode(bytes, { stream: true }));
    } catch (error) {
      throw new DecodeError(`expected UTF-8 text, but got other bytes: ${error}`);
    }
  }

  close() {
    try {
      return this.#give(this.#utf8.decode());
    } catch (error) {
      throw new Truncated(`expected UTF-8 text, but it ends in a character: ${error}`);
    }
  }

  #give(/** @type {string} */ text) {
    return text === "" ? [] : [bare(text)];
  }
}

/** Reads one JSON document, `{"data": [...]}`, as the events in it and its outcome. */
class DocumentDecoder {
  #utf8 = new TextDecoder();
  #text = "";

  feed(/** @type {Uint8Array} */ bytes) {
    this.#text += this.#utf8.decode(bytes, { stream: true });
    if (this.#text.length > MAX_DOCUMENT) throw new FrameTooLarge(MAX_DOCUMENT, this.#text.length);
    return /** @type {TailEvent[]} */ ([]);
  }

  close() {
    let value;
    try {
      value = JSON.parse(this.#text + this.#utf8.decode());
    } catch (error) {
      throw new Truncated(`expected a JSON document, but got ${shown(this.#text)}: ${error}`);
    }
    return readDocument(value);
  }
}

/** Returns the events of a document, and its outcome. A document without an outcome has a cursor. @param {any} value */
function readDocument(value) {
  if (!Array.isArray(value?.data)) {
    throw new DecodeError(`expected an object with a list as "data", but got ${shown(value)}`);
  }
  const events = value.data.map(readValue);
  if (typeof value.after === "string") events.unshift(frame({}, "dropped", value.after));
  if (typeof value.cursor !== "string") events.push(outcomeEvent(value.outcome ?? { state: "done" }));
  else if (value.data.length > 0) events.at(-1).id = value.cursor;
  return /** @type {TailEvent[]} */ (events);
}

function outcomeEvent(/** @type {any} */ outcome) {
  if (!OUTCOMES.has(outcome?.state)) {
    throw new DecodeError(`expected an object with a "state" as "outcome", but got ${shown(outcome)}`);
  }
  const { state, ...members } = outcome;
  return frame(members, state);
}

/**
 * @param {any} data
 * @param {string | null} [event]
 * @param {string | null} [id]
 * @param {number | null} [retry]
 * @returns {TailEvent}
 */
function frame(data, event = null, id = null, retry = null) {
  return { data, event, id, retry };
}

/** @param {any} data */
function bare(data) {
  return frame(data);
}

/**
 * Reads an event from any JSON value of a server that sends cursors.
 *
 * An object with a cursor as its `id` is an envelope if it has `data`. Otherwise the object itself is the data, and if
 * its `type` is a reserved name, it is a notice. A packet has its cursor as `cursor`. Any other value is data without
 * an id.
 *
 * @param {any} value
 * @returns {TailEvent}
 */
function readValue(value) {
  if (typeof value !== "object" || value === null) return bare(value);
  if ("packet_type" in value && isCursor(value.cursor)) return readPacket(value);
  if (!isCursor(value.id)) return bare(value);
  if (!("data" in value)) return frame(value, RESERVED.has(value.type) ? value.type : null, value.id);
  const { data, event = null, id, retry = null } = value;
  const isEnvelope = (event === null || typeof event === "string") && (retry === null || Number.isInteger(retry));
  return isEnvelope ? { data, event, id, retry } : bare(value);
}

/** Reads a line of a packet session: a packet, or a notice in the form of a packet. @param {any} value */
function readPacket(value) {
  const { cursor, ...packet } = value;
  const kind = String(packet.packet_type).toLowerCase();
  // An application sends packets of the type ERROR, too. Only the last one is the session's outcome.
  const isNotice = RESERVED.has(kind) && (kind !== "error" || cursor.endsWith(".end"));
  return isNotice ? frame(packet.payload, kind, cursor) : frame(packet, null, cursor);
}

/**
 * @template {DecodeError} E
 * @param {E} error
 * @param {TailEvent[]} before
 */
function withBefore(error, before) {
  error.before = before;
  return error;
}

const SSE = "text/event-stream";
const NDJSON = "application/x-ndjson";
const DOCUMENT = "application/json";
const TEXT = "text/plain";
const EXPECTED = [SSE, NDJSON, DOCUMENT, TEXT].join(", ");
const ACCEPT = `${SSE}, ${NDJSON};q=0.9, ${DOCUMENT};q=0.5, ${TEXT};q=0.3`;
const LINES = new Set([
  NDJSON,
  ...["ndjson", "jsonl", "x-jsonlines", "jsonlines", "json-lines", "x-jsonl"].map((name) => `application/${name}`),
]);

/**
 * @param {string} mediaType
 * @param {number} maxLength
 * @param {boolean} cursors
 * @returns {Decoder}
 */
function decoderFor(mediaType, maxLength, cursors) {
  if (mediaType === SSE) return new SSEDecoder({ maxLength, marks: new Map([["[DONE]", DONE_MARK]]) });
  if (LINES.has(mediaType)) return new LinesDecoder({ maxLength, cursors });
  if (mediaType === DOCUMENT) return new DocumentDecoder();
  if (mediaType === TEXT) return new PiecesDecoder();
  throw new NotAStream(mediaType, EXPECTED);
}

/** Cuts a body into lines or blocks, for `onLine`. */
class Lines {
  #utf8 = new TextDecoder();
  #rest = "";
  #number = 0;
  #total = 0;
  #end;
  #onLine;

  /**
   * @param {string} mediaType
   * @param {(text: string, piece: Piece) => void} onLine
   */
  constructor(mediaType, onLine) {
    this.#end = mediaType === SSE ? /\r?\n\r?\n/ : "\n";
    this.#onLine = onLine;
  }

  feed(/** @type {Uint8Array} */ bytes) {
    const piece = { number: ++this.#number, bytes: bytes.length, total: (this.#total += bytes.length) };
    const lines = (this.#rest + this.#utf8.decode(bytes, { stream: true })).split(this.#end);
    // Whoever only looks on must not need more memory than the decoder.
    this.#rest = /** @type {string} */ (lines.pop()).slice(0, MAX_LENGTH);
    for (const line of lines) if (line.trim() !== "") this.#onLine(line, piece);
  }
}

// Events and ends

const RESERVED = new Set(["done", "error", "cancelled", "reset", "farewell", "dropped"]);
const OUTCOMES = new Set(["done", "error", "cancelled"]);

/** The number of ids to remember, so that events that another server repeats are recognised. */
const KNOWN = 1000;

/** Reads the notice in an event with a reserved name. @param {TailEvent} event @returns {Notice} */
function readNotice({ event, data }) {
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    throw new DecodeError(`expected an object as data of ${event}, but got ${shown(data)}`);
  }
  switch (event) {
    case "reset":
      return { kind: "reset", reason: String(member(event, data, "reason")) };
    case "farewell":
      return { kind: "farewell", reason: String(member(event, data, "reason")), retry: member(event, data, "retry") };
    case "dropped":
      return { kind: "dropped" };
    default:
      return outcome(/** @type {Outcome["state"]} */ (event), data.code, data.message, data.data);
  }
}

function member(/** @type {string} */ event, /** @type {any} */ data, /** @type {string} */ name) {
  if (name in data) return data[name];
  throw new DecodeError(`expected "${name}" in the data of ${event}, but got ${shown(data)}`);
}

/**
 * @param {Outcome["state"]} state
 * @param {any} [code]
 * @param {any} [message]
 * @param {any} [data]
 * @returns {{ kind: "outcome" } & Outcome}
 */
function outcome(state, code, message, data = null) {
  return { kind: "outcome", state, code: textOf(code), message: textOf(message), data };
}

/** Other servers use numbers as error codes. @param {any} value */
function textOf(value) {
  return value === null || value === undefined ? null : String(value);
}

/** Returns a stream's failure if its last event is `{"error": {"message": …, "code": …}}`, as OpenAI's API sends it. */
function readFailure(/** @type {TailEvent | null} */ last) {
  const error = last?.id === null && Object.keys(last.data ?? {}).join() === "error" ? last.data.error : null;
  if (typeof error !== "object" || error === null) return null;
  return outcome("error", error.code ?? error.type, error.message);
}

/** Tells whether others must follow an event: a chunk of OpenAI's API in which no choice has a `finish_reason`. */
function isUnfinished(/** @type {TailEvent | null} */ last) {
  const { object, choices } = last?.data ?? {};
  if (object !== "chat.completion.chunk" || !Array.isArray(choices) || choices.length === 0) return false;
  return choices.every((choice) => choice?.finish_reason === null || choice?.finish_reason === undefined);
}

/** Sorts the frames of one stream, across all its connections, into events and ends. */
class Sorting {
  /** The last event that was given. @type {TailEvent | null} */
  last = null;
  /** True if the next connection can go on after that event. */
  canGoOn = true;
  gaveSinceReset = true;
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

  /**
   * @param {string | null} after
   * @param {Backoff} backoff
   * @param {{ allowGaps?: boolean, isSocket?: boolean }} options
   */
  constructor(after, backoff, { allowGaps = false, isSocket = false }) {
    this.position = new Position(after, isSocket);
    this.#backoff = backoff;
    this.#allowGaps = allowGaps;
    this.#isSocket = isSocket;
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

  #endAt(/** @type {string} */ place, /** @type {TailEvent} */ frame, /** @type {Sorted} */ sorted) {
    if (place === "elsewhere") {
      sorted.end = { kind: "reset", reason: "epoch_changed" };
    } else {
      // This is no notice, but the last event. Its data is the stream's result.
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
   *
   * @param {TailEvent[]} frames
   */
  #withoutKnown(frames) {
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

// Refusals

/** The statuses that mean: try again. */
const UNAVAILABLE = new Set([429, 502, 503, 504]);
/** The statuses among them that also mean that the request has started nothing. */
const NOT_DEALT_WITH = new Set([429, 503]);
const MAX_REFUSAL = 1 << 16;
const UNKNOWN = "it is unknown whether the request has arrived";

/** Makes an error of a refusal's members. OpenAI's API nests them in `error`. */
function refusal(/** @type {number} */ status, /** @type {Record<string, any>} */ members) {
  const said = isRecord(members.error) ? members.error : members;
  const detail = said.message ?? said.detail ?? said.error ?? said.title;
  const text = Array.isArray(detail) ? detail.map(readMistake).join("; ") : textOf(detail);
  return new StreamRefused(status, textOf(said.code), text, members);
}

/** Returns one line for a mistake that FastAPI found in a request. */
function readMistake(/** @type {any} */ mistake) {
  return Array.isArray(mistake?.loc) ? `${mistake.loc.join(".")}: ${mistake.msg ?? "no reason given"}` : shown(mistake);
}

/** Makes an error of a refusal's body: an object with `detail` and `code`, another server's object, or any text. */
function readRefusal(/** @type {number} */ status, /** @type {string} */ body) {
  const members = parsed(body);
  return refusal(status, isRecord(members) ? members : { detail: readPage(body) });
}

/** Returns a text for people, or the title of a web page. */
function readPage(/** @type {string} */ text) {
  if (!text.trimStart().startsWith("<")) return text.slice(0, 500).trim() || null;
  return /<title[^>]*>([^<]*)/i.exec(text)?.[1].trim() ?? null;
}

function parsed(/** @type {string} */ text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @param {any} value @returns {value is Record<string, any>} */
function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// Addresses

/** @param {string | URL} url */
function absolute(url) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  if (!URL.canParse(url, base)) throw new TypeError(`expected a URL, but got ${shown(String(url))}`);
  return new URL(url, base).href;
}

/** Returns the URL with a parameter, which replaces all others with its name. The others stay as they are. */
function withParameter(/** @type {string} */ url, /** @type {string} */ name, /** @type {string} */ value) {
  const parts = new URL(url);
  const kept = parts.search.slice(1).split("&").filter((pair) => pair && pair.split("=")[0] !== name);
  parts.search = [...kept, `${name}=${encodeURIComponent(value)}`].join("&");
  return parts.href;
}

/** Returns the URL with added parameters. A list means several values, and null means no value. */
function withParameters(/** @type {string} */ url, /** @type {Record<string, any>} */ params) {
  const parts = new URL(url);
  for (const [name, value] of Object.entries(params)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined) parts.searchParams.append(name, String(each));
    }
  }
  return parts.href;
}

/** Returns the target with the relation `stop` in a Link header (RFC 8288, sections 3 and 3.3). */
function stopLink(/** @type {string | null} */ header) {
  for (const [, target, parameters] of (header ?? "").matchAll(/<([^>]*)>([^<]*)/g)) {
    const [, quoted, word] = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))/i.exec(parameters) ?? [];
    if ((quoted ?? word ?? "").toLowerCase().split(/\s+/).includes("stop")) return target;
  }
  return null;
}

/**
 * Returns the address that a response from the URL `by` names, if it may get the headers that were meant for `asked`.
 *
 * @param {string | null} reference
 * @param {string} by
 * @param {string} asked
 */
function namedAddress(reference, by, asked) {
  if (reference === null || !URL.canParse(reference, by)) return null;
  const [named, responding, meant] = [new URL(reference, by), new URL(by), new URL(asked)];
  const isUpgraded = meant.protocol === "http:" && responding.origin === `https://${meant.hostname}`;
  const isMeant = named.origin === meant.origin || (named.origin === responding.origin && isUpgraded);
  return isMeant && named.protocol.startsWith("http") ? named.href : null;
}

// Retries

/** @type {Retry} */
const RETRY = { limit: 8, base: 0.5, cap: 30, longest: 60, patience: Infinity };

/** Exponential backoff with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. */
class Backoff {
  failures = 0;
  #floor = 0;
  #since = performance.now();
  #retry;

  /** @param {Partial<Retry>} [retry] */
  constructor(retry) {
    this.#retry = { ...RETRY, ...retry };
  }

  succeed() {
    this.failures = 0;
    this.#since = performance.now();
  }

  /** Waits at least as long as the server asks before each attempt, but no longer than `longest`. */
  heed(/** @type {number} */ seconds) {
    this.#floor = Math.min(seconds, this.#retry.longest);
  }

  /**
   * Counts a failure. Returns the seconds to wait, or in words why there is no further attempt.
   *
   * @param {number | undefined} told
   * @param {number} [atLeast]
   */
  fail(told, atLeast = 0) {
    const { limit, base, cap, longest, patience } = this.#retry;
    if (++this.failures > limit) return "";
    const wanted = told ?? atLeast;
    if (wanted > longest) {
      return `the server asks for ${wanted.toFixed()} s of rest, and Retry(longest=${longest}) allows less`;
    }
    const bound = Math.min(cap, base * 2 ** (this.failures - 1));
    const delay = told ?? Math.max(atLeast, this.#floor + Math.random() * bound);
    const isOver = performance.now() / 1000 + delay > this.#since / 1000 + patience;
    return isOver ? "" : Math.max(0, delay);
  }
}

/** Returns the seconds of a Retry-After header with a number or a date. */
function readRetryAfter(/** @type {string | null} */ value) {
  if (value === null) return undefined;
  if (/^[0-9]+$/.test(value)) return Number(value);
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - Date.now()) / 1000);
}

const LONGEST_TIMER = 2 ** 31 - 1; // a longer one would fire at once

/**
 * Calls a function after some seconds. Returns a function that prevents it.
 *
 * @param {number} seconds
 * @param {() => void} act
 */
function after(seconds, act) {
  const timer = setTimeout(act, Math.min(seconds * 1000, LONGEST_TIMER));
  return () => clearTimeout(timer);
}

/**
 * Waits for some seconds, or until `signal` aborts, or until `wake` is fulfilled.
 *
 * @param {number} seconds
 * @param {AbortSignal} signal
 * @param {((signal: AbortSignal) => Promise<void>) | undefined} wake
 */
async function pause(seconds, signal, wake) {
  const over = new AbortController();
  await new Promise((/** @type {(value: void) => void} */ resolve) => {
    if (signal.aborted) resolve();
    const cancel = after(seconds, resolve);
    over.signal.addEventListener("abort", cancel);
    signal.addEventListener("abort", () => resolve(), { signal: over.signal });
    wake?.(over.signal).then(resolve, () => {});
  });
  over.abort();
}

/** Waits until the device is online again or the page becomes visible. @param {AbortSignal} signal */
function whenBack(signal) {
  const { document, addEventListener } = globalThis;
  return new Promise((/** @type {(value: void) => void} */ resolve) => {
    addEventListener("online", () => resolve(), { signal });
    const look = () => document.visibilityState === "visible" && resolve();
    document?.addEventListener("visibilitychange", look, { signal });
  });
}

// Reading

const REPLACED = new Loss("replaced", "another client reads the stream now");
const INTERRUPTED = new Loss("broken", "the reading was interrupted");

/**
 * What streams and rooms have in common: the iteration, the state, and the decisions about ends.
 *
 * A reader reads only when you ask for an event, and holds at most one piece of a body.
 */
class Reader {
  /** @type {State} */
  #state = "idle";
  /** @type {any} */
  #reason = null; // of the caller's signal
  /** @type {TailEvent[]} */
  #queue = [];
  #taken = 0; // from the queue
  /** @type {string | null} */
  #cursor;
  /** @type {Outcome | null} */
  #outcome = null;
  #isBusy = false;
  #batches;
  #onState;
  #onReset;
  #wake;
  /** @type {(() => void)[]} */
  #watchers = [];

  /**
   * @param {ReaderOptions} options
   * @param {{ allowGaps?: boolean, isSocket?: boolean }} kind
   */
  constructor(options, kind) {
    const { after = null, retry, signal, onState, onReset = "throw", wake } = options;
    if (after !== null && !FIELD_VALUE.test(after)) {
      throw new TypeError(`expected an id that a header can hold as after, but got ${shown(after)}`);
    }
    this.#onState = onState;
    this.#onReset = onReset;
    this.#wake = wake ?? (globalThis.document ? whenBack : undefined);
    this.#cursor = after;
    /** @protected */
    this._backoff = new Backoff(retry);
    /** @protected */
    this._sorting = new Sorting(after, this._backoff, kind);
    /** @protected */
    this._left = new AbortController();
    this.#batches = this.#follow();
    signal?.addEventListener("abort", () => this.#leave(signal.reason), { signal: this._left.signal });
    if (signal?.aborted) {
      this.#reason = signal.reason;
      this._left.abort();
    }
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** The outcome of the stream. Null before the end, or if the server does not tell. @returns {Outcome | null} */
  get outcome() {
    return this.#outcome;
  }

  /** The id of the last event that you received. Pass it as `after` to continue later. @returns {string | null} */
  get cursor() {
    const isBehind = this.#taken < this.#queue.length || this._left.signal.aborted;
    return isBehind ? this.#cursor : this._sorting.position.token;
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

  /** Connects, unless an iteration has. Throws the error if the server does not give the stream. */
  async open() {
    if (this.#state === "idle") await this.#fill();
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
      return !done;
    } finally {
      this.#isBusy = false;
    }
  }

  #leave(/** @type {any} */ reason) {
    if (this._left.signal.aborted) return;
    this.#cursor = this.cursor;
    this.#reason = reason;
    this._left.abort();
    this._disconnect();
    // A reading that is under way notices this itself.
    if (!this.#isBusy) this.#batches.return();
    this.#queue = [];
    this.#taken = 0;
    if (this.#state !== "failed" && this.#state !== "ended") this._become("ended");
  }

  // Following

  /** Follows the stream across connections. An empty batch means that the stream has opened. */
  async *#follow() {
    try {
      for (;;) {
        const drop = yield* this.#connectOnce();
        if (drop === null) break;
        await this.#wait(drop);
      }
    } catch (error) {
      if (!this._left.signal.aborted) throw this.#fail(error);
    }
    if (this.#reason !== null) throw this.#reason;
    if (this._left.signal.aborted) return;
    this._settle(null);
    this._become("ended");
  }

  async *#connectOnce() {
    if (this._left.signal.aborted) return null;
    this._become("connecting");
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

  /**
   * @protected
   * @param {State} state
   * @param {{ seconds?: number, reason?: string, kind?: LossKind }} [details]
   */
  _become(state, { seconds, reason, kind } = {}) {
    this.#state = state;
    for (const watcher of this.#watchers.splice(0)) watcher();
    const attempt = this._backoff.failures;
    this.#onState?.({ state, attempt, seconds: seconds ?? null, reason: reason ?? null, kind: kind ?? null });
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
   * @returns {Verdict}
   */
  _obey(end, said) {
    if (end instanceof StreamRefused) return this._judgeRefusal(end, true);
    if (end instanceof DecodeError) throw end;
    if (end.kind === "reset") return this._restart(end.reason, said?.id ?? null);
    if (said !== null && said.id !== null) this._sorting.position.move(said.id);
    if (end.kind === "farewell") return this.#bidFarewell(end.reason, end.retry);
    if (end.kind === "outcome") this._end(end, said);
    return { given: [], drop: null };
  }

  #bidFarewell(/** @type {string} */ reason, /** @type {number} */ retry) {
    if (reason === "replaced") throw this._lost(REPLACED);
    const loss = new Loss("farewell", `the server said farewell (${reason})`);
    return { given: [], drop: { loss, told: Math.max(0, retry) / 1000 } };
  }

  /**
   * @protected
   * @param {Outcome} end
   * @param {TailEvent | null} [said]
   */
  _end({ state, code, message, data }, said = null) {
    this.#outcome = { state, code, message, data };
    if (state === "error") throw new StreamFailed(code, message, isRecord(said?.data) ? said.data : {});
  }

  /**
   * Continues from a reset's cursor if the caller wants that. A `reset` event voids the earlier events.
   *
   * @protected
   * @param {string} reason
   * @param {string | null} cursor
   * @returns {Verdict}
   */
  _restart(reason, cursor) {
    if (this.#onReset === "throw") throw new StreamReset(reason, cursor);
    const told = this._sorting.gaveSinceReset ? 0 : undefined; // only the first reset in a row is no reason to wait
    this._sorting.restart(cursor);
    const loss = new Loss("reset", `the stream was reset (${reason})`);
    return { given: [frame({ reason }, "reset", cursor)], drop: { loss, told } };
  }

  /**
   * @protected
   * @param {StreamRefused} error
   * @param {boolean} mayRepeat
   * @param {number} [retryAfter]
   * @returns {Verdict}
   */
  _judgeRefusal(error, mayRepeat, retryAfter) {
    const { status, code, members } = error;
    if (status === 410 && code === "reset") {
      return this._restart(String(members.reason), isCursor(members.cursor) ? members.cursor : null);
    }
    if (!UNAVAILABLE.has(status)) throw error;
    const loss = new Loss("unavailable", error.message);
    const isUntouched = NOT_DEALT_WITH.has(status);
    if (mayRepeat || (isUntouched && retryAfter !== undefined)) {
      return { given: [], drop: { loss, atLeast: retryAfter } };
    }
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

  /**
   * @protected
   * @param {Loss} loss
   * @param {string} [note]
   */
  _lost(loss, note) {
    return new StreamLost(loss, this._sorting.position.token, 0, note);
  }
}

// Streams

/** @type {Timeouts} */
const TIMEOUTS = { head: 120, idle: 45, event: 600 };

/** Seconds in which a server returns the document of an ended stream. */
const AT_ONCE = 3;

const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * Follows a stream: `for await (const event of tail(url))`. Nothing happens before the first event is asked for.
 *
 * @param {string | URL} url
 * @param {TailOptions} [options]
 */
export function tail(url, options = {}) {
  return new Stream(url, options);
}

/** A stream to read once, across any number of connections. Make one with `tail`. */
export class Stream extends Reader {
  /** @type {string | null} */
  #address;
  /** @type {string | null} */
  #stopAddress = null;
  /** @type {string | null} */
  #mediaType = null;
  /** @type {Response | null} */
  #response = null;
  /** @type {Connection | null} */
  #connection = null;
  /** @type {Promise<any> | null} */
  #stopping = null;
  #mayHaveRead = false; // true once the server may have a connection of ours that reads the stream
  #quietSince = 0;
  /** @type {string | null} */
  #key;
  #url;
  #method;
  #body;
  #after;
  #timeouts;
  #kept;
  #options;

  /**
   * @param {string | URL} url
   * @param {TailOptions} options
   */
  constructor(url, options) {
    if (options.json !== undefined && options.body !== undefined) {
      throw new TypeError("expected json or body, but got both");
    }
    const body = options.json === undefined ? (options.body ?? null) : JSON.stringify(options.json);
    const method = (options.method ?? (body === null ? "GET" : "POST")).toUpperCase();
    const asked = withParameters(absolute(url), options.params ?? {});
    const kept = new Kept(options, `${method} ${asked} ${spelled(body)}`);
    const place = options.address === undefined && options.after === undefined ? kept.load() : null;
    const after = options.after ?? place?.cursor ?? undefined;
    super({ ...options, after }, { allowGaps: options.allowGaps });
    this.#url = asked;
    this.#method = method;
    this.#body = body;
    this.#after = after ?? null;
    this.#kept = kept;
    this.#options = options;
    this.#timeouts = { ...TIMEOUTS, ...options.timeouts };
    this.#key = options.idempotencyKey === true ? (place?.key ?? crypto.randomUUID()) : options.idempotencyKey || null;
    const address = options.address ?? place?.address ?? null;
    this.#address = address === null ? null : absolute(address);
    this.#stopAddress = place?.stopAddress ?? null;
  }

  /** The address of the stream itself, if the server has named it. */
  get address() {
    return this.#address;
  }

  /** Where to stop the stream, if the server has named it. */
  get stopAddress() {
    return this.#stopAddress;
  }

  /** The media type of the response. Null before a response. */
  get mediaType() {
    return this.#mediaType;
  }

  /** The last response. */
  get response() {
    return this.#response;
  }

  /**
   * Stops the stream itself, for all its readers, and returns the server's answer. The iteration then ends, and
   * `outcome` says so.
   *
   * Before the first response, this waits for the address to stop at. With `reconnect`, the stream gives up its own
   * connection first and comes back for the end: a browser has only six connections to a server with HTTP/1.1.
   *
   * @param {{ reconnect?: boolean }} [options]
   */
  async stop({ reconnect = false } = {}) {
    while (this.#stopAddress === null && (this.state === "connecting" || this.state === "waiting")) {
      await this._whenChanged();
    }
    if (this.#stopAddress === null) throw new NotStoppable();
    const stopping = this.#ask("POST", this.#stopAddress);
    if (reconnect) {
      this.#stopping = stopping.catch(() => {});
      this.#connection?.interrupt(INTERRUPTED);
    }
    return stopping;
  }

  /** Sends a request that may be repeated, and returns its answer. */
  async #ask(/** @type {string} */ method, /** @type {string} */ url) {
    const backoff = new Backoff(this.#options.retry);
    for (;;) {
      const { loss, answer, retryAfter } = await this.#askOnce(method, url);
      if (loss === undefined) return answer;
      const delay = backoff.fail(undefined, retryAfter);
      if (typeof delay === "string") throw new StreamLost(loss, this.cursor, backoff.failures, delay);
      await pause(delay, new AbortController().signal, undefined);
    }
  }

  async #askOnce(/** @type {string} */ method, /** @type {string} */ url) {
    const connection = new Connection();
    try {
      const headers = new Headers(await this.#ownHeaders());
      for (const name of [...headers.keys()]) if (name.startsWith("content-")) headers.delete(name);
      const response = await connection.open(this.#fetch, url, { method, headers }, this.#timeouts.head);
      const text = await connection.text(MAX_REFUSAL, this.#timeouts.head);
      if (response.ok) return { answer: parsed(text) ?? text };
      const error = readRefusal(response.status, text);
      if (!UNAVAILABLE.has(response.status)) throw error;
      const retryAfter = readRetryAfter(response.headers.get("retry-after"));
      return { loss: new Loss("unavailable", error.message), retryAfter };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return { loss: error.loss };
    } finally {
      connection.close();
    }
  }

  // One connection

  /** @protected @override */
  async *_connect() {
    if (this.#stopping !== null) {
      await Promise.race([this.#stopping, this._whenChanged()]);
      if (this._left.signal.aborted) return null;
    }
    this.#connection = new Connection();
    let response;
    try {
      response = await this.#send(this.#connection);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return this.#judgeFailure(error);
    }
    this.#response = response;
    this.#options.onResponse?.(response);
    if (response.status === 204) return this._endWithoutEvents();
    if (!response.ok) return yield* this.#beRefused(this.#connection, response);
    this.#mayHaveRead = true;
    this.#note(response);
    const decoder = decoderFor(
      /** @type {string} */ (this.#mediaType),
      this.#options.maxLength ?? MAX_LENGTH,
      this._sorting.position.givesCursors,
    );
    this._become("open");
    yield [];
    const drop = yield* this.#readBody(this.#connection, decoder);
    if (drop !== null) this.#checkResumable(drop.loss);
    return drop;
  }

  /** @protected @override */
  _disconnect() {
    this.#connection?.close();
    this.#connection = null;
  }

  async #send(/** @type {Connection} */ connection) {
    const headers = new Headers(await this.#ownHeaders());
    if (!headers.has("accept")) headers.set("accept", this.#options.accept ?? ACCEPT);
    const isFirst = this.#address === null;
    if (isFirst && this.#options.json !== undefined && !headers.has("content-type")) {
      headers.set("content-type", DOCUMENT);
    }
    if (isFirst && this.#key !== null) headers.set("idempotency-key", this.#key);
    const token = this._sorting.position.token;
    if (token !== null && !this._sorting.position.givesCursors) headers.set("last-event-id", inBytes(token));
    // The headers that describe a body are those of the first request.
    if (!isFirst) for (const name of [...headers.keys()]) if (name.startsWith("content-")) headers.delete(name);
    const own = isFirst ? { method: this.#method, body: this.#body } : { method: "GET" };
    this.#kept.save(this.#place);
    return connection.open(this.#fetch, this.#nextUrl, { ...own, headers, cache: "no-store" }, this.#timeouts.head);
  }

  get #nextUrl() {
    const { token, givesCursors } = this._sorting.position;
    let url = this.#address ?? this.#url;
    if (token !== null && isCursor(token) && (givesCursors || token === this.#after)) {
      url = withParameter(url, "after", token);
    }
    return this.#options.takeover && this.#mayHaveRead ? withParameter(url, "takeover", "true") : url;
  }

  async #ownHeaders() {
    const { headers = {} } = this.#options;
    return typeof headers === "function" ? headers() : headers;
  }

  get #fetch() {
    return this.#options.fetch ?? globalThis.fetch;
  }

  #judgeFailure(/** @type {Failure} */ { loss, sent, final, ours }) {
    if (sent) this.#mayHaveRead = true;
    if (final) throw this._lost(loss);
    if (sent && !ours && !this.#mayRepeat) throw this._lost(loss, UNKNOWN);
    return { loss, ours };
  }

  async *#beRefused(/** @type {Connection} */ connection, /** @type {Response} */ response) {
    const body = await connection.text(MAX_REFUSAL, this.#timeouts.head).catch(() => "");
    const error = readRefusal(response.status, body);
    const retryAfter = readRetryAfter(response.headers.get("retry-after"));
    const { given, drop } = this._judgeRefusal(error, this.#mayRepeat, retryAfter);
    if (given.length > 0) yield given;
    return drop;
  }

  /** Keeps the facts about the stream from the head of a response. */
  #note(/** @type {Response} */ { headers, url }) {
    this.#mediaType = (headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
    const cursor = headers.get("tailrace-cursor");
    this._sorting.begin(isCursor(cursor) ? cursor : null, this.#mediaType === DOCUMENT);
    // Requests to these addresses carry the caller's credentials, so they must have the origin of the request.
    const by = url || this.#url;
    this.#address = namedAddress(headers.get("content-location"), by, this.#url) ?? this.#address;
    this.#stopAddress = namedAddress(stopLink(headers.get("link")), by, this.#url) ?? this.#stopAddress;
    this.#kept.save(this.#place);
  }

  // The body

  /**
   * @param {Connection} connection
   * @param {Decoder} decoder
   * @returns {AsyncGenerator<TailEvent[], Drop | null, void>}
   */
  async *#readBody(connection, decoder) {
    const { onLine } = this.#options;
    const lines = onLine && new Lines(/** @type {string} */ (this.#mediaType), onLine);
    let gave = false;
    this.#quietSince = performance.now();
    try {
      for (;;) {
        const bytes = await connection.read(this.#timeToRead());
        if (bytes !== null) lines?.feed(bytes);
        const { given, end, said } = this._sorting.sort(...decode(decoder, bytes));
        if (given.length > 0) {
          gave = true;
          yield given;
          this.#quietSince = performance.now();
        }
        if (bytes === null) return yield* this.#endBody(end, said);
        if (end !== null) return yield* this.#obeyEnd(end, said);
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return yield* this.#endBroken(error, gave);
    }
  }

  /** Returns the seconds for a read. Throws StreamLost if no new event came for too long. */
  #timeToRead() {
    const { idle, event } = this.#timeouts;
    const left = this.#quietSince / 1000 + event - performance.now() / 1000;
    if (left > 0) return Math.min(left, idle);
    throw this._lost(new Loss("stalled", `no new event came for ${event} s, though the server is there`));
  }

  async *#obeyEnd(/** @type {End} */ end, /** @type {TailEvent | null} */ said) {
    const { given, drop } = this._obey(end, said);
    if (given.length > 0) yield given;
    return drop;
  }

  /** Decides whether the clean end of the body is the end of the stream. */
  async *#endBody(/** @type {End | null} */ end, /** @type {TailEvent | null} */ said) {
    const { saysOutcomes, last } = this._sorting;
    if (end instanceof Truncated && saysOutcomes) return broken(end.message);
    end ??= readFailure(last);
    if (end !== null) return yield* this.#obeyEnd(end, said);
    if (isUnfinished(last)) return broken("the response ended in the middle of an answer");
    if (!saysOutcomes || this.#mediaType === DOCUMENT) return null;
    if (this.#mediaType !== TEXT) return broken("the response ended, but the stream has not");
    this._end(outcome("done"));
    return null;
  }

  /** Decides what a body means that ended uncleanly. */
  async *#endBroken(/** @type {Failure} */ { loss, ours }, /** @type {boolean} */ gave) {
    const failure = readFailure(this._sorting.last);
    if (failure !== null) return yield* this.#obeyEnd(failure, null);
    // Chromium may discard what came just before an unclean end, and that is how every failed stream ends.
    if (loss.kind === "broken" && !ours && !gave && this.#address !== null && this._sorting.saysOutcomes) {
      const frames = await this.#readEnd(this.#address);
      const { given, end, said } = this._sorting.sort(frames);
      if (given.length > 0) yield given;
      if (end !== null) return yield* this.#obeyEnd(end, said);
    }
    return { loss, ours };
  }

  /** Returns the rest of an ended stream from its document, or nothing while the stream goes on. */
  async #readEnd(/** @type {string} */ address) {
    const { token } = this._sorting.position;
    const from = token === null ? address : withParameter(address, "after", token);
    const headers = new Headers(await this.#ownHeaders());
    headers.set("accept", DOCUMENT);
    const connection = (this.#connection = new Connection());
    try {
      const url = withParameter(from, "stream", "false");
      const { ok } = await connection.open(this.#fetch, url, { headers, cache: "no-store" }, AT_ONCE);
      const value = parsed(await connection.text(MAX_DOCUMENT, AT_ONCE));
      if (!Array.isArray(value?.data) || typeof value.cursor === "string") return [];
      const failed = { state: "error", code: value.code, message: value.detail };
      return readDocument(ok ? value : { ...value, outcome: failed });
    } catch (error) {
      if (!(error instanceof Failure || error instanceof DecodeError)) throw error;
      return [];
    } finally {
      connection.close();
    }
  }

  // Continuing

  /** True if the next request cannot start the stream a second time. */
  get #mayRepeat() {
    const { token, givesCursors } = this._sorting.position;
    return SAFE.has(this.#method) || this.#key !== null || this.#address !== null || (givesCursors && isCursor(token));
  }

  /** Throws StreamLost if continuing could leave a gap, repeat an event or start the stream a second time. */
  #checkResumable(/** @type {Loss} */ loss) {
    const { canGoOn, position } = this._sorting;
    if (!canGoOn && !this.#options.allowGaps) {
      throw this._lost(loss, "its last event has no id after which it could go on");
    }
    if (position.token !== null && !FIELD_VALUE.test(position.token)) {
      throw this._lost(loss, "the id of its last event cannot be sent back");
    }
    if (!this.#mayRepeat) throw this._lost(loss, "it has no address of its own at which it could go on");
  }

  // The kept place

  get #place() {
    return { cursor: this.cursor, address: this.#address, stopAddress: this.#stopAddress, key: this.#key };
  }

  /** @protected @override */
  _keepPlace() {
    if (this.#response !== null && this.#kept.isUsed) this.#kept.save(this.#place);
  }

  /** @protected @override */
  _settle(/** @type {Error | null} */ error) {
    if (!(error instanceof StreamLost)) this.#kept.remove();
  }
}

/** @param {string} reason @returns {Drop} */
function broken(reason) {
  return { loss: new Loss("broken", reason) };
}

/**
 * Decodes a piece, or the end if it is null. Returns the events, and the error after them if there is one.
 *
 * @param {Decoder} decoder
 * @param {Uint8Array | null} bytes
 * @returns {[TailEvent[], DecodeError | null]}
 */
function decode(decoder, bytes) {
  try {
    return [bytes === null ? decoder.close() : decoder.feed(bytes), null];
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return [error.before, error];
  }
}

/** Sends an id back as it came, in UTF-8 (HTML standard, "Last-Event-ID"). A header holds bytes. @param {string} id */
function inBytes(id) {
  return String.fromCharCode(...new TextEncoder().encode(id));
}

// One HTTP response

/** The end of a connection. `sent` is true if the request may have arrived, `final` if a further one is useless. */
class Failure {
  /**
   * @param {Loss} loss
   * @param {{ sent?: boolean, final?: boolean, ours?: boolean }} [facts]
   */
  constructor(loss, { sent = true, final = false, ours = false } = {}) {
    this.loss = loss;
    this.sent = sent;
    this.final = final;
    this.ours = ours;
  }
}

const NO_CONNECTION = new Set([
  ...["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"],
]);
const NO_HEAD_IN_TIME = new Failure(new Loss("silent", "the head of the response did not come in time"));
const NOTHING_IN_TIME = new Failure(new Loss("silent", "the server has been silent for too long"));

/** A request and its response. It has a timer only while someone waits. */
class Connection {
  #abort = new AbortController();
  /** @type {ReadableStreamDefaultReader<Uint8Array> | null} */
  #reader = null;
  /** @type {Failure | null} */
  #failure = null;

  /**
   * Sends a request, and returns the head of its response. Throws Failure.
   *
   * @param {typeof globalThis.fetch} fetch
   * @param {string} url
   * @param {RequestInit} init
   * @param {number} seconds
   */
  async open(fetch, url, init, seconds) {
    const sent = fetch(url, { ...init, signal: this.#abort.signal });
    const response = await this.#within(seconds, sent, NO_HEAD_IN_TIME, unopened);
    this.#reader = response.body?.getReader() ?? null;
    return response;
  }

  /** Returns more of the body, or null at its end. Throws Failure. @param {number} seconds */
  async read(seconds) {
    if (this.#reader === null) return null;
    const { done, value } = await this.#within(seconds, this.#reader.read(), NOTHING_IN_TIME, unread);
    return done ? null : value;
  }

  /** Returns the whole body, up to about `limit` bytes of it. Throws Failure. */
  async text(/** @type {number} */ limit, /** @type {number} */ seconds) {
    const utf8 = new TextDecoder();
    const until = performance.now() + seconds * 1000;
    let text = "";
    while (text.length < limit) {
      const bytes = await this.read(Math.max(0, until - performance.now()) / 1000);
      if (bytes === null) break;
      text += utf8.decode(bytes, { stream: true });
    }
    return text + utf8.decode();
  }

  /** Ends the connection because the application wants it. */
  interrupt(/** @type {Loss} */ loss) {
    this.#failure = new Failure(loss, { ours: true });
    this.#abort.abort();
  }

  close() {
    this.#failure ??= new Failure(INTERRUPTED, { ours: true });
    this.#abort.abort();
  }

  /**
   * @template T
   * @param {number} seconds
   * @param {Promise<T>} promise
   * @param {Failure} late
   * @param {(error: any) => Failure} describe
   * @returns {Promise<T>}
   */
  async #within(seconds, promise, late, describe) {
    const cancel = after(seconds, () => {
      this.#failure ??= late;
      this.#abort.abort();
    });
    try {
      return await promise;
    } catch (error) {
      throw this.#failure ?? describe(error);
    } finally {
      cancel();
    }
  }
}

/** Says why a request got no response. Browsers do not tell whether it has arrived. @param {any} error */
function unopened(error) {
  const { code = "", message = "" } = error?.cause ?? {};
  const detail = message || error?.message || String(error);
  if (NO_CONNECTION.has(code)) return new Failure(new Loss("unsent", "no connection", detail), { sent: false });
  if (globalThis.navigator?.onLine === false) return new Failure(new Loss("unsent", "no connection"), { sent: false });
  if (/CERT|SELF_SIGNED|VERIFY/.test(code)) return hopeless("unsent", "no secure connection", detail);
  if (message === "redirect count exceeded") return hopeless("misled", "the server redirects without an end");
  if (/scheme|invalid url/i.test(message)) {
    return hopeless("misled", "the server redirects to where nobody can be", detail);
  }
  return new Failure(new Loss("broken", "the connection failed", detail));
}

/**
 * @param {LossKind} kind
 * @param {string} reason
 * @param {string} [detail]
 */
function hopeless(kind, reason, detail) {
  return new Failure(new Loss(kind, reason, detail), { final: true });
}

function unread(/** @type {any} */ error) {
  const detail = error?.cause?.message ?? error?.message ?? String(error);
  return new Failure(new Loss("broken", "the connection failed", detail));
}

// A place that survives a reload

/** @typedef {{ cursor: string | null, address: string | null, stopAddress: string | null, key: string | null }} Place */

/**
 * Returns the place of an unfinished stream that was saved under a name, or null.
 *
 * @param {string} name
 * @param {Store} [storage]
 * @returns {Place | null}
 */
export function saved(name, storage) {
  return new Kept({ saveAs: name, storage }, null).load();
}

/** Keeps the place in a stream under a name. It belongs to one request, so that another request begins anew. */
class Kept {
  #name;
  #storage;
  #request;
  #last = "";

  /**
   * @param {{ saveAs?: string, storage?: Store }} options
   * @param {string | null} request
   */
  constructor({ saveAs, storage }, request) {
    this.#name = `tailrace:${saveAs}`;
    this.#storage = saveAs === undefined ? null : (storage ?? sessionStore());
    this.#request = request;
  }

  get isUsed() {
    return this.#storage !== null;
  }

  /** @returns {Place | null} */
  load() {
    const kept = parsed(this.#try((storage) => storage.getItem(this.#name)) ?? "");
    if (!isRecord(kept) || (this.#request !== null && kept.request !== this.#request)) return null;
    const { cursor = null, address = null, stopAddress = null, key = null } = kept;
    return { cursor, address, stopAddress, key };
  }

  save(/** @type {Place} */ place) {
    if (this.#storage === null) return;
    const text = JSON.stringify({ request: this.#request, ...place });
    if (text !== this.#last) this.#try((storage) => storage.setItem(this.#name, text));
    this.#last = text;
  }

  remove() {
    this.#last = "";
    this.#try((storage) => storage.removeItem(this.#name));
  }

  /**
   * Uses the storage. It may be full or forbidden, and then a reload begins anew.
   *
   * @template T
   * @param {(storage: Store) => T} use
   */
  #try(use) {
    try {
      return this.#storage === null ? null : use(this.#storage);
    } catch {
      return null;
    }
  }
}

function sessionStore() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null; // the page may not use it
  }
}

/** Returns a short text that tells a body from another one. @param {BodyInit | null} body */
function spelled(body) {
  if (body === null) return "";
  if (body instanceof FormData) return digest([...body].map(([name, value]) => `${name}=${shownPart(value)}`).join("&"));
  return body instanceof Blob ? `${body.type} ${body.size}` : digest(String(body));
}

function shownPart(/** @type {FormDataEntryValue} */ value) {
  return typeof value === "string" ? value : `${value.name} ${value.size}`;
}

/** Returns the length and two hashes of a text, multiplied as in FNV-1a. */
function digest(/** @type {string} */ text) {
  let [one, two] = [0x811c9dc5, 0x9e3779b9];
  for (let index = 0; index < text.length; index++) {
    one = Math.imul(one ^ text.charCodeAt(index), 0x01000193);
    two = Math.imul(two ^ text.charCodeAt(index), 0x85ebca6b);
  }
  return [text.length, one >>> 0, two >>> 0].join("-");
}

// Rooms

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

  /**
   * @param {string | URL} url
   * @param {JoinOptions} options
   */
  constructor(url, options) {
    super({ onReset: "restart", ...options }, { isSocket: true });
    this.#url = withParameters(absolute(url), options.params ?? {});
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
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError(`expected what JSON can say, but got ${shown(String(value))}`);
    if (this.#socket?.isOpen) return this.#pass(this.#socket, text);
    if (this.state === "ended" || this.state === "failed") throw this._lost(INTERRUPTED);
    if (this.#unsent.length >= this.#maxQueued) {
      throw new TooManyUnsent(this.#unsent.length, `${this.#maxQueued} messages`);
    }
    return new Promise((resolve, reject) => void this.#unsent.push({ text, resolve, reject }));
  }

  /** @protected @override */
  async *_connect() {
    const socket = (this.#socket = new Socket(this.#nextUrl, this.#options, this.#maxQueued));
    if (!(await socket.opened)) return yield* this.#judgeUnopened();
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
      if (end === null) continue;
      const verdict = this._obey(end, said);
      if (verdict.given.length > 0) yield verdict.given;
      return verdict.drop;
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
  async *#judgeUnopened() {
    const loss = new Loss("unsent", "no connection");
    if (this._left.signal.aborted) return { loss, ours: true };
    const connection = new Connection();
    try {
      const url = withParameter(this.#nextUrl.replace(/^ws/, "http"), "stream", "false");
      const headers = new Headers(this.#options.headers);
      headers.set("accept", DOCUMENT);
      const response = await connection.open(globalThis.fetch, url, { headers }, HANDSHAKE);
      if (response.ok) return { loss };
      const error = readRefusal(response.status, await connection.text(MAX_REFUSAL, HANDSHAKE));
      const verdict = this._judgeRefusal(error, true, readRetryAfter(response.headers.get("retry-after")));
      if (verdict.given.length > 0) yield verdict.given;
      return verdict.drop;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return { loss };
    } finally {
      connection.close();
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

/**
 * @param {string[]} messages
 * @returns {[TailEvent[], DecodeError | null]}
 */
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

  /**
   * @param {string} url
   * @param {OwnJoinOptions} options
   * @param {number} maxQueued
   */
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

  send(/** @type {string} */ text) {
    const { bufferedAmount } = this.#socket;
    if (bufferedAmount > MAX_LENGTH) throw new TooManyUnsent(bufferedAmount, `${MAX_LENGTH} bytes`);
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
