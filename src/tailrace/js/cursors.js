// Cursors, and the position in a stream.

const CURSOR = /^([A-Za-z0-9_~-]{1,128}\.[A-Za-z0-9_-]{1,32}\.)(0|[1-9][0-9]{0,14})(?:~[A-Za-z0-9_-]{4,8})?(\.end)?$/;

/** @param {any} token */
export function isCursor(token) {
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

// The first and the last character are not spaces (RFC 9110, section 5.5).
export const FIELD_VALUE = /^[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?$/;

/**
 * The id of the last event, from any server. Only cursors have an order. An id is a cursor only if the server sends
 * cursors, because other servers' ids may look like one.
 */
export class Position {
  #stem = "";
  #offset = -1;

  /** @param {string | null} token @param {boolean} givesCursors */
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
   */
  advance(/** @type {string} */ token) {
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
