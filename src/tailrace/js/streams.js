// Streams over HTTP.

import { FIELD_VALUE, isCursor } from "./cursors.js";
import { ACCEPT, DOCUMENT, Lines, MAX_DOCUMENT, TEXT, decode, decoderFor } from "./decoders.js";
import {
  DecodeError, Loss, NotStoppable, StreamLost, Truncated, UNAVAILABLE, asJSON, parsed, readRefusal,
} from "./errors.js";
import { isUnfinished, outcome, readDocument, readFailure } from "./events.js";
import { Kept, spelled } from "./places.js";
import { Reader, UNKNOWN, broken } from "./reading.js";
import { Connection, Failure, absolute, namedAddress, stopLink, withParameter, withParameters } from "./requests.js";
import { Backoff, pause, readRetryAfter, withDefaults } from "./retries.js";
import { MAX_LENGTH } from "./sse.js";

/** @import { Decoder, Piece } from "./decoders.js" */
/** @import { TailEvent } from "./events.js" */
/** @import { Store } from "./places.js" */
/** @import { Drop, HeaderMap, ReaderOptions } from "./reading.js" */
/** @import { End } from "./sorting.js" */

/**
 * @typedef {object} Timeouts Seconds.
 * @property {number} head Until the head of a response is complete.
 * @property {number} idle Without any bytes. The server's pings count.
 * @property {number} event Without a new event. Pings do not count.
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
  /** The address of the stream itself, if the server has named it. @type {string | null} */
  address;
  /** Where to stop the stream, if the server has named it. @type {string | null} */
  stopAddress;
  /** The media type of the response. Null before a response. @type {string | null} */
  mediaType = null;
  /** The last response. @type {Response | null} */
  response = null;
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

  /** @param {string | URL} url @param {TailOptions} options */
  constructor(url, options) {
    if (options.json !== undefined && options.body !== undefined) {
      throw new TypeError("expected json or body, but got both");
    }
    const body = options.json === undefined ? (options.body ?? null) : asJSON(options.json);
    const method = (options.method ?? (body === null ? "GET" : "POST")).toUpperCase();
    const asked = withParameters(absolute(url), options.params ?? {});
    // A request that fetch refuses would look like one whose connection failed, and be repeated.
    new Request(asked, { method, body });
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
    this.#timeouts = withDefaults(TIMEOUTS, options.timeouts);
    this.#key = options.idempotencyKey === true ? (place?.key ?? crypto.randomUUID()) : options.idempotencyKey || null;
    const address = options.address ?? place?.address ?? null;
    this.address = address === null ? null : absolute(address);
    this.stopAddress = place?.stopAddress ?? null;
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
    while (this.stopAddress === null && (this.state === "connecting" || this.state === "waiting")) {
      await this._whenChanged();
    }
    if (this.stopAddress === null) throw new NotStoppable();
    const stopping = this.#post(this.stopAddress);
    if (reconnect) {
      this.#stopping = stopping.catch(() => {});
      this.#connection?.close();
    }
    return stopping;
  }

  /** Sends a request that may be repeated, and returns its answer. */
  async #post(/** @type {string} */ url) {
    const backoff = new Backoff(this.#options.retry);
    for (;;) {
      const { loss, answer, retryAfter } = await this.#postOnce(url);
      if (loss === undefined) return answer;
      const delay = backoff.fail(undefined, retryAfter);
      if (typeof delay === "string") throw new StreamLost(loss, this.cursor, backoff.failures, delay);
      await pause(delay, new AbortController().signal, undefined);
    }
  }

  async #postOnce(/** @type {string} */ url) {
    try {
      const init = { method: "POST", headers: withoutContent(await this.#ownHeaders()) };
      const { response, text } = await new Connection().ask(this.#fetch, url, init, this.#timeouts.head);
      if (response.ok) return { answer: parsed(text) ?? text };
      const error = readRefusal(response.status, text);
      if (!UNAVAILABLE.has(response.status)) throw error;
      const retryAfter = readRetryAfter(response.headers.get("retry-after"));
      return { loss: new Loss("unavailable", error.message), retryAfter };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return { loss: error.loss };
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
    this.response = response;
    this.#options.onResponse?.(response);
    if (response.status === 204) return this._endWithoutEvents();
    if (!response.ok) return this.#judgeRefused(this.#connection, response);
    this.#mayHaveRead = true;
    this.#note(response);
    const decoder = decoderFor(
      /** @type {string} */ (this.mediaType),
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
    const isFirst = this.address === null;
    // The headers that describe a body are those of the first request.
    const headers = isFirst ? await this.#ownHeaders() : withoutContent(await this.#ownHeaders());
    if (!headers.has("accept")) headers.set("accept", this.#options.accept ?? ACCEPT);
    if (isFirst && this.#options.json !== undefined && !headers.has("content-type")) {
      headers.set("content-type", DOCUMENT);
    }
    if (isFirst && this.#key !== null) headers.set("idempotency-key", this.#key);
    const token = this._sorting.position.token;
    if (token !== null && !this._sorting.position.givesCursors) headers.set("last-event-id", inBytes(token));
    const own = isFirst ? { method: this.#method, body: this.#body } : { method: "GET" };
    this.#kept.save(this.#place);
    return connection.open(this.#fetch, this.#nextUrl, { ...own, headers, cache: "no-store" }, this.#timeouts.head);
  }

  get #nextUrl() {
    const { token, givesCursors } = this._sorting.position;
    let url = this.address ?? this.#url;
    if (token !== null && isCursor(token) && (givesCursors || token === this.#after)) {
      url = withParameter(url, "after", token);
    }
    return this.#options.takeover && this.#mayHaveRead ? withParameter(url, "takeover", "true") : url;
  }

  async #ownHeaders() {
    const { headers = {} } = this.#options;
    return new Headers(await (typeof headers === "function" ? headers() : headers));
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

  async #judgeRefused(/** @type {Connection} */ connection, /** @type {Response} */ response) {
    const body = await connection.text(this.#timeouts.head).catch(() => "");
    const error = readRefusal(response.status, body);
    const retryAfter = readRetryAfter(response.headers.get("retry-after"));
    return this._judgeRefusal(error, this.#mayRepeat, retryAfter);
  }

  /** Keeps the facts about the stream from the head of a response. */
  #note(/** @type {Response} */ { headers, url }) {
    this.mediaType = (headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
    const cursor = headers.get("tailrace-cursor");
    this._sorting.begin(isCursor(cursor) ? cursor : null, this.mediaType === DOCUMENT);
    // Requests to these addresses carry the caller's credentials, so they must have the origin of the request.
    const by = url || this.#url;
    this.address = namedAddress(headers.get("content-location"), by, this.#url) ?? this.address;
    this.stopAddress = namedAddress(stopLink(headers.get("link")), by, this.#url) ?? this.stopAddress;
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
    const lines = onLine && new Lines(/** @type {string} */ (this.mediaType), onLine);
    let gave = false;
    this.#quietSince = performance.now();
    // A server on this device is still there, and then another connection is there at once.
    connection.whenOffline(() => this.#obstacle === null && connection.close());
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
        if (bytes === null) return this.#endBody(end, said);
        if (end !== null) return this._obey(end, said);
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

  /** Decides whether the clean end of the body is the end of the stream. */
  #endBody(/** @type {End | null} */ end, /** @type {TailEvent | null} */ said) {
    const { saysOutcomes, last } = this._sorting;
    if (end instanceof Truncated && saysOutcomes) return broken(end.message);
    end ??= readFailure(last);
    if (end !== null) return this._obey(end, said);
    if (isUnfinished(last)) return broken("the response ended in the middle of an answer");
    if (!saysOutcomes || this.mediaType === DOCUMENT) return null;
    if (this.mediaType !== TEXT) return broken("the response ended, but the stream has not");
    this._end(outcome("done"));
    return null;
  }

  /** Decides what a body means that ended uncleanly. */
  async *#endBroken(/** @type {Failure} */ { loss, ours }, /** @type {boolean} */ gave) {
    const failure = readFailure(this._sorting.last);
    if (failure !== null) return this._obey(failure, null);
    // Chromium may discard what came just before an unclean end, and that is how every failed stream ends.
    if (loss.kind === "broken" && !ours && !gave && this.address !== null && this._sorting.saysOutcomes) {
      const frames = await this.#readEnd(this.address);
      const { given, end, said } = this._sorting.sort(frames);
      if (given.length > 0) yield given;
      if (end !== null) return this._obey(end, said);
    }
    return { loss, ours };
  }

  /** Returns the rest of an ended stream from its document, or nothing while the stream goes on. */
  async #readEnd(/** @type {string} */ address) {
    const { token } = this._sorting.position;
    const from = token === null ? address : withParameter(address, "after", token);
    const headers = await this.#ownHeaders();
    headers.set("accept", DOCUMENT);
    this.#connection = new Connection();
    try {
      const url = withParameter(from, "stream", "false");
      const init = { headers, cache: /** @type {const} */ ("no-store") };
      const { response, text } = await this.#connection.ask(this.#fetch, url, init, AT_ONCE, MAX_DOCUMENT);
      const value = parsed(text);
      if (!Array.isArray(value?.data) || typeof value.cursor === "string") return [];
      const failed = { state: "error", code: value.code, message: value.detail };
      return readDocument(response.ok ? value : { ...value, outcome: failed });
    } catch (error) {
      if (!(error instanceof Failure || error instanceof DecodeError)) throw error;
      return [];
    }
  }

  // Continuing

  /** True if the next request cannot start the stream a second time. */
  get #mayRepeat() {
    const { token, givesCursors } = this._sorting.position;
    return SAFE.has(this.#method) || this.#key !== null || this.address !== null || (givesCursors && isCursor(token));
  }

  /** Throws StreamLost if continuing could leave a gap, repeat an event or start the stream a second time. */
  #checkResumable(/** @type {Loss} */ loss) {
    const obstacle = this.#obstacle;
    if (obstacle !== null) throw this._lost(loss, obstacle);
  }

  /** Why another connection could not go on, or null if it could. */
  get #obstacle() {
    const { canGoOn, position } = this._sorting;
    if (!canGoOn && !this.#options.allowGaps) return "its last event has no id to continue after";
    if (position.token !== null && !FIELD_VALUE.test(position.token)) {
      return "the id of its last event cannot be sent back";
    }
    return this.#mayRepeat ? null : "it has no address of its own to continue at";
  }

  // The kept place

  get #place() {
    return { cursor: this.cursor, address: this.address, stopAddress: this.stopAddress, key: this.#key };
  }

  /** @protected @override */
  _keepPlace() {
    if (this.response !== null && this.#kept.isUsed) this.#kept.save(this.#place);
  }

  /** @protected @override */
  _settle(/** @type {Error | null} */ error) {
    if (!(error instanceof StreamLost)) this.#kept.remove();
  }
}

function withoutContent(/** @type {Headers} */ headers) {
  for (const name of [...headers.keys()]) if (name.startsWith("content-")) headers.delete(name);
  return headers;
}

/** Sends an id back as it came, in UTF-8 (HTML standard, "Last-Event-ID"). A header holds bytes. @param {string} id */
function inBytes(id) {
  return String.fromCharCode(...new TextEncoder().encode(id));
}
