// Decoders: bytes in, events out, whatever pieces the bytes arrive in.

import { DecodeError, FrameTooLarge, NotAStream, Truncated, shown } from "./errors.js";
import { DONE_MARK, frame, readDocument, readValue } from "./events.js";
import { MAX_LENGTH, SSEDecoder } from "./sse.js";

/** @import { TailEvent } from "./events.js" */

/** @typedef {{ number: number, bytes: number, total: number }} Piece A piece of a body, and the bytes of all so far. */

/** @typedef {{ feed(bytes: Uint8Array): TailEvent[], close(): TailEvent[] }} Decoder */

export const MAX_DOCUMENT = 64 << 20;

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
    this.#read = cursors ? readValue : frame;
  }

  /** Returns the events that these bytes complete. @param {Uint8Array} bytes */
  feed(bytes) {
    const lines = this.#utf8.decode(bytes, { stream: true }).split("\n");
    lines[0] = this.#rest + lines[0];
    this.#rest = /** @type {string} */ (lines.pop());
    const events = this.#readLines(lines);
    this.#check(this.#rest, events);
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
      this.#check(line, events);
      if (line !== "" && line.trim() !== "") events.push(this.#readLine(line, events));
    }
    return events;
  }

  #check(/** @type {string} */ line, /** @type {TailEvent[]} */ before) {
    if (line.length > this.#maxLength) throw new FrameTooLarge(this.#maxLength, line.length, before);
  }

  #readLine(/** @type {string} */ line, /** @type {TailEvent[]} */ before) {
    try {
      return this.#read(JSON.parse(line));
    } catch (error) {
      throw new DecodeError(`expected a line of JSON, but got ${shown(line)}: ${error}`, before);
    }
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
    return text === "" ? [] : [frame(text)];
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

const SSE = "text/event-stream";
const NDJSON = "application/x-ndjson";
export const DOCUMENT = "application/json";
export const TEXT = "text/plain";
const EXPECTED = [SSE, NDJSON, DOCUMENT, TEXT].join(", ");
export const ACCEPT = `${SSE}, ${NDJSON};q=0.9, ${DOCUMENT};q=0.5, ${TEXT};q=0.3`;
const LINES = new Set([
  NDJSON,
  ...["ndjson", "jsonl", "x-jsonlines", "jsonlines", "json-lines", "x-jsonl"].map((name) => `application/${name}`),
]);

/** @param {string} mediaType @param {number} maxLength @param {boolean} cursors @returns {Decoder} */
export function decoderFor(mediaType, maxLength, cursors) {
  if (mediaType === SSE) return new SSEDecoder({ maxLength, marks: new Map([["[DONE]", DONE_MARK]]) });
  if (LINES.has(mediaType)) return new LinesDecoder({ maxLength, cursors });
  if (mediaType === DOCUMENT) return new DocumentDecoder();
  if (mediaType === TEXT) return new PiecesDecoder();
  throw new NotAStream(mediaType, EXPECTED);
}

/** Cuts a body into lines or blocks, for `onLine`. */
export class Lines {
  #utf8 = new TextDecoder();
  #rest = "";
  #number = 0;
  #total = 0;
  #end;
  #onLine;

  /** @param {string} mediaType @param {(text: string, piece: Piece) => void} onLine */
  constructor(mediaType, onLine) {
    this.#end = mediaType === SSE ? /\r?\n\r?\n/ : "\n";
    this.#onLine = onLine;
  }

  feed(/** @type {Uint8Array} */ bytes) {
    const piece = { number: ++this.#number, bytes: bytes.length, total: (this.#total += bytes.length) };
    const lines = (this.#rest + this.#utf8.decode(bytes, { stream: true })).split(this.#end);
    // An observer must not need more memory than the decoder.
    this.#rest = /** @type {string} */ (lines.pop()).slice(0, MAX_LENGTH);
    for (const line of lines) if (line.trim() !== "") this.#onLine(line, piece);
  }
}

/**
 * Decodes a piece, or the end if it is null. Returns the events, and the error after them if there is one.
 *
 * @param {Decoder} decoder
 * @param {Uint8Array | null} bytes
 * @returns {[TailEvent[], DecodeError | null]}
 */
export function decode(decoder, bytes) {
  try {
    return [bytes === null ? decoder.close() : decoder.feed(bytes), null];
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return [error.before, error];
  }
}
