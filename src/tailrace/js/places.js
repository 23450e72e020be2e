// The place in a stream that survives a reload of the page.

import { FIELD_VALUE } from "./cursors.js";
import { isRecord, parsed } from "./errors.js";

/** @typedef {Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem">} Store */

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
export class Kept {
  #name;
  #storage;
  #request;
  #last = "";

  /** @param {{ saveAs?: string, storage?: Store }} options @param {string | null} request */
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
    const place = { cursor, address, stopAddress, key };
    // Other scripts of the origin may write here, too.
    return Object.values(place).every((each) => each === null || isSendable(each)) ? place : null;
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

function isSendable(/** @type {any} */ value) {
  return typeof value === "string" && FIELD_VALUE.test(value);
}

function sessionStore() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null; // the page may not use it
  }
}

/** Returns a short text that tells a body from another one. @param {BodyInit | null} body */
export function spelled(body) {
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
