// Events and notices, in the forms that servers give them.

import { isCursor } from "./cursors.js";
import { DecodeError, isRecord, shown, textOf } from "./errors.js";

/**
 * @typedef {object} TailEvent
 * @property {any} data
 * @property {string | null} event The event's name.
 * @property {string | null} id The cursor after this event, or another server's id.
 * @property {number | null} retry Milliseconds that the server wants a client to wait before it reconnects.
 */

/**
 * @typedef {object} Outcome
 * @property {"done" | "cancelled" | "error"} state
 * @property {string | null} code
 * @property {string | null} message
 * @property {any} data The value of the whole stream, such as its statistics.
 */

/**
 * @typedef {{ kind: "outcome" } & Outcome | { kind: "reset", reason: string }
 *   | { kind: "farewell", reason: string, retry: number } | { kind: "dropped" }
 *   | { kind: "degraded", degraded: boolean }} Notice
 */

export const RESERVED = new Set(["done", "error", "cancelled", "reset", "farewell", "dropped", "degraded"]);
const OUTCOMES = new Set(["done", "error", "cancelled"]);

/** The data of a block with only `retry`. No JSON text becomes this. */
export const ONLY_RETRY = undefined;

/** The data that stands for OpenAI's `[DONE]`. */
export const DONE_MARK = Object.freeze({ done: true });

/**
 * @param {any} data
 * @param {string | null} [event]
 * @param {string | null} [id]
 * @param {number | null} [retry]
 * @returns {TailEvent}
 */
export function frame(data, event = null, id = null, retry = null) {
  return { data, event, id, retry };
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
export function readValue(value) {
  if (typeof value !== "object" || value === null) return frame(value);
  if ("packet_type" in value && isCursor(value.cursor)) return readPacket(value);
  if (!isCursor(value.id)) return frame(value);
  if (!("data" in value)) return frame(value, RESERVED.has(value.type) ? value.type : null, value.id);
  const { data, event = null, id, retry = null } = value;
  const isEnvelope = (event === null || typeof event === "string") && (retry === null || Number.isInteger(retry));
  return isEnvelope ? { data, event, id, retry } : frame(value);
}

/** Reads a line of a packet session: a packet, or a notice in the form of a packet. @param {any} value */
function readPacket(value) {
  const { cursor, ...packet } = value;
  const kind = String(packet.packet_type).toLowerCase();
  // An application sends packets of the type ERROR, too. Only the last one is the session's outcome.
  const isNotice = RESERVED.has(kind) && (kind !== "error" || cursor.endsWith(".end"));
  return isNotice ? frame(packet.payload, kind, cursor) : frame(packet, null, cursor);
}

/** Returns the events of a document, and its outcome. A document without an outcome has a cursor. @param {any} value */
export function readDocument(value) {
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

/** Reads the notice in an event with a reserved name. @param {TailEvent} event @returns {Notice} */
export function readNotice({ event, data }) {
  if (!isRecord(data)) throw new DecodeError(`expected an object as data of ${event}, but got ${shown(data)}`);
  switch (event) {
    case "reset":
      return { kind: "reset", reason: String(member(event, data, "reason")) };
    case "farewell":
      return { kind: "farewell", reason: String(member(event, data, "reason")), retry: member(event, data, "retry") };
    case "dropped":
      return { kind: "dropped" };
    case "degraded":
      return { kind: "degraded", degraded: member(event, data, "degraded") === true };
    default:
      return outcome(/** @type {Outcome["state"]} */ (event), data.code, data.message, data.data);
  }
}

function member(/** @type {string | null} */ event, /** @type {any} */ data, /** @type {string} */ name) {
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
export function outcome(state, code, message, data = null) {
  return { kind: "outcome", state, code: textOf(code), message: textOf(message), data };
}

/** Returns a stream's failure if its last event is `{"error": {"message": …, "code": …}}`, as OpenAI's API sends it. */
export function readFailure(/** @type {TailEvent | null} */ last) {
  const error = last?.id === null && Object.keys(last.data ?? {}).join() === "error" ? last.data.error : null;
  if (typeof error !== "object" || error === null) return null;
  return outcome("error", error.code ?? error.type, error.message);
}

/** Tells whether others must follow an event: a chunk of OpenAI's API in which no choice has a `finish_reason`. */
export function isUnfinished(/** @type {TailEvent | null} */ last) {
  const { object, choices } = last?.data ?? {};
  if (object !== "chat.completion.chunk" || !Array.isArray(choices) || choices.length === 0) return false;
  return choices.every((choice) => choice?.finish_reason === null || choice?.finish_reason === undefined);
}
