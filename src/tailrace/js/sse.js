// The decoder of Server-Sent Events.

import { DecodeError, FrameTooLarge } from "./errors.js";
import { ONLY_RETRY } from "./events.js";

/** @import { TailEvent } from "./events.js" */

export const MAX_LENGTH = 8 << 20;
const SHORT = 512;
const LINE_FEED = 10;
const LETTER_D = 100;
const LETTER_I = 105;

/** Marks the characters with which JSON begins. A failed attempt to read JSON costs more than all other decoding. */
const BEGINS_JSON = new Uint8Array(128);
for (const character of '{["-0123456789tfn \t\n') BEGINS_JSON[character.charCodeAt(0)] = 1;

/**
 * Reads the events of any server (https://html.spec.whatwg.org/multipage/server-sent-events.html). Data that is not
 * JSON is text.
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
   * @param {Map<string, any>} [options.marks] Values of texts that are not JSON.
   */
  constructor({ maxLength = MAX_LENGTH, json = true, marks = new Map() } = {}) {
    this.#maxLength = maxLength;
    this.#read = json ? readJSON : readText;
    this.#marks = marks;
  }

  /** Returns the events that these bytes complete. @param {Uint8Array} bytes */
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
      if (error instanceof DecodeError) error.before = events;
      throw error;
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

  /** Keeps the beginning of a line. The colon of a comment is enough. */
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
    let first = text.charCodeAt(at); // comparing it costs less than a search that fails
    if (first === LETTER_I && text.startsWith("id: ", at)) {
      const end = text.indexOf("\n", at);
      if (end < 0) return start;
      id = text.slice(at + 4, end);
      at = end + 1;
      first = text.charCodeAt(at);
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

/** Returns the value of a JSON text, or what a mark stands for, or the text itself. */
function readJSON(/** @type {string} */ text, /** @type {Map<string, any>} */ marks) {
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
