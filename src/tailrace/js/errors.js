// Errors, and how they are made of a server's refusal.

/** @import { TailEvent } from "./events.js" */

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
  /** @param {string} message @param {TailEvent[]} [before] */
  constructor(message, before = []) {
    super(message);
    this.before = before;
  }
}

/** An event beyond the decoder's bound. */
export class FrameTooLarge extends DecodeError {
  /** @param {number} limit @param {number} size @param {TailEvent[]} [before] */
  constructor(limit, size, before) {
    super(`expected a frame of at most ${limit} characters, but got at least ${size}`, before);
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
  /** @param {string | null} code @param {string | null} message @param {Record<string, any>} [members] */
  constructor(code, message, members = {}) {
    super(`the stream failed: ${inOneLine(message ?? "no message")} (${inOneLine(code ?? "no code")})`);
    this.code = code;
    this.detail = message;
    this.members = members;
  }
}

/** The stream cannot be continued: discard what you read from it. The server's remaining events begin at `cursor`. */
export class StreamReset extends ClientError {
  /** @param {string} reason @param {string | null} cursor */
  constructor(reason, cursor) {
    super(`the stream was reset (${inOneLine(reason)}); go on from ${cursor ?? "its beginning"}`);
    this.reason = reason;
    this.cursor = cursor;
  }
}

/** The client has given up, after `attempts` failures in a row. Another client may continue from `cursor`. */
export class StreamLost extends ClientError {
  /** @param {Loss} loss @param {string | null} [cursor] @param {number} [attempts] @param {string} [note] */
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
  /** @param {string} mediaType @param {string} expected */
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
  /** @param {number} unsent @param {string} bound */
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
  /** @param {LossKind} kind @param {string} reason @param {string} [detail] Another library's message. */
  constructor(kind, reason, detail = "") {
    this.kind = kind;
    this.reason = reason;
    this.detail = detail;
  }

  toString() {
    return this.detail ? `${this.reason}: ${this.detail}` : this.reason;
  }
}

export const REPLACED = new Loss("replaced", "another client reads the stream now");
export const INTERRUPTED = new Loss("broken", "the reading was interrupted");

// Refusals

/** The statuses that mean: try again. */
export const UNAVAILABLE = new Set([429, 502, 503, 504]);
/** The statuses among them that also mean that the request has started nothing. */
export const NOT_DEALT_WITH = new Set([429, 503]);

/** Makes an error of a refusal's members. OpenAI's API nests them in `error`. */
export function refusal(/** @type {number} */ status, /** @type {Record<string, any>} */ members) {
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
export function readRefusal(/** @type {number} */ status, /** @type {string} */ body) {
  const members = parsed(body);
  return refusal(status, isRecord(members) ? members : { detail: readPage(body) });
}

/** Returns a text for people, or the title of a web page. */
function readPage(/** @type {string} */ text) {
  if (!text.trimStart().startsWith("<")) return text.slice(0, 500).trim() || null;
  return /<title[^>]*>([^<]*)/i.exec(text)?.[1].trim() ?? null;
}

// Values and their texts

/** Returns the value of a JSON text, or undefined. */
export function parsed(/** @type {string} */ text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Returns a value as a JSON text. @param {any} value */
export function asJSON(value) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`expected JSON-able data, but got ${shown(String(value))}`);
  return text;
}

/** @param {any} value @returns {value is Record<string, any>} */
export function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Other servers use numbers as error codes. @param {any} value */
export function textOf(value) {
  return value === null || value === undefined ? null : String(value);
}

const LONGEST_MESSAGE = 300;

/** Returns a server's message as one printable line. @param {string} said */
function inOneLine(said) {
  const words = said.slice(0, 2 * LONGEST_MESSAGE).replace(/[\p{C}\s]+/gu, " ").trim();
  return words.length <= LONGEST_MESSAGE ? words : `${words.slice(0, LONGEST_MESSAGE)}…`;
}

/** Returns any value for an error's text. @param {any} value */
export function shown(value) {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? String(value))).slice(0, 80);
}
