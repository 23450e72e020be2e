// One request and its response, and the addresses in it.

import { INTERRUPTED, Loss, shown } from "./errors.js";
import { after } from "./retries.js";

/** @import { LossKind } from "./errors.js" */

/** The end of a connection. `sent` is true if the request may have arrived, `final` if a further one is useless. */
export class Failure {
  /** @param {Loss} loss @param {{ sent?: boolean, final?: boolean, ours?: boolean }} [facts] */
  constructor(loss, { sent = true, final = false, ours = false } = {}) {
    this.loss = loss;
    this.sent = sent;
    this.final = final;
    this.ours = ours;
  }
}

/** The most characters to read of an answer that is not a stream. */
const MAX_REFUSAL = 1 << 16;

/** Codes of Node for a request that has not been sent. */
const NO_CONNECTION = new Set(
  ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"],
);
const NO_HEAD_IN_TIME = new Failure(new Loss("silent", "the head of the response did not come in time"));
const NOTHING_IN_TIME = new Failure(new Loss("silent", "the server has been silent for too long"));

/** A request and its response. It has a timer only while someone waits. */
export class Connection {
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

  /**
   * Sends a request, and returns its response with the text of its body. Throws Failure.
   *
   * @param {typeof globalThis.fetch} fetch
   * @param {string} url
   * @param {RequestInit} init
   * @param {number} seconds For the head, and for the body.
   * @param {number} [limit]
   */
  async ask(fetch, url, init, seconds, limit) {
    try {
      const response = await this.open(fetch, url, init, seconds);
      return { response, text: await this.text(seconds, limit) };
    } finally {
      this.close();
    }
  }

  /** Returns more of the body, or null at its end. Throws Failure. @param {number} seconds */
  async read(seconds) {
    if (this.#reader === null) return null;
    const { done, value } = await this.#within(seconds, this.#reader.read(), NOTHING_IN_TIME, unread);
    return done ? null : value;
  }

  /** Returns the whole body, up to about `limit` bytes of it. Throws Failure. */
  async text(/** @type {number} */ seconds, limit = MAX_REFUSAL) {
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

  /** Calls a function when the device goes offline. A browser may take minutes to break the connection itself. */
  whenOffline(/** @type {() => void} */ act) {
    if (globalThis.document) addEventListener("offline", act, { signal: this.#abort.signal });
  }

  /** Ends the connection because the application wants it. */
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
  if (message === "redirect count exceeded") return hopeless("misled", "the server redirects endlessly");
  if (/scheme|invalid url/i.test(message)) {
    return hopeless("misled", "the server redirects to an impossible address", detail);
  }
  return new Failure(new Loss("broken", "the connection failed", detail));
}

/** @param {LossKind} kind @param {string} reason @param {string} [detail] */
function hopeless(kind, reason, detail) {
  return new Failure(new Loss(kind, reason, detail), { final: true });
}

function unread(/** @type {any} */ error) {
  const detail = error?.cause?.message ?? error?.message ?? String(error);
  return new Failure(new Loss("broken", "the connection failed", detail));
}

// Addresses

const SCHEMES = /^(https?|wss?):$/;

/** @param {string | URL} url */
export function absolute(url) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  if (!URL.canParse(url, base)) throw new TypeError(`expected a URL, but got ${shown(String(url))}`);
  const parts = new URL(url, base);
  const { protocol, username, password } = parts;
  if (!SCHEMES.test(protocol)) throw new TypeError(`expected a URL with http or ws, but got ${protocol}`);
  if (username || password) throw new TypeError("expected a URL without a name and a password: send them as a header");
  parts.hash = ""; // it is not sent, and a WebSocket refuses it
  return parts.href;
}

/** Returns the URL with a parameter, which replaces all others with its name. The others stay as they are. */
export function withParameter(/** @type {string} */ url, /** @type {string} */ name, /** @type {string} */ value) {
  const parts = new URL(url);
  const kept = parts.search.slice(1).split("&").filter((pair) => pair && pair.split("=")[0] !== name);
  parts.search = [...kept, `${name}=${encodeURIComponent(value)}`].join("&");
  return parts.href;
}

/** Returns the URL with added parameters. A list means several values, and null means no value. */
export function withParameters(/** @type {string} */ url, /** @type {Record<string, any>} */ params) {
  const parts = new URL(url);
  for (const [name, value] of Object.entries(params)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined) parts.searchParams.append(name, String(each));
    }
  }
  return parts.href;
}

/** Returns the target with the relation `stop` in a Link header (RFC 8288, sections 3 and 3.3). */
export function stopLink(/** @type {string | null} */ header) {
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
export function namedAddress(reference, by, asked) {
  if (reference === null || !URL.canParse(reference, by)) return null;
  const [named, responding, meant] = [new URL(reference, by), new URL(by), new URL(asked)];
  const isUpgraded = meant.protocol === "http:" && responding.origin === `https://${meant.hostname}`;
  const isMeant = named.origin === meant.origin || (named.origin === responding.origin && isUpgraded);
  return isMeant && named.protocol.startsWith("http") ? named.href : null;
}
