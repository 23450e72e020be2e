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
 * This module has the public names. The others, from the ground up: errors.js, cursors.js, events.js; sse.js and
 * decoders.js (bytes in, events out); retries.js, sorting.js and requests.js (one connection); reading.js (a stream
 * across connections); streams.js with places.js, and rooms.js.
 *
 * @module tailrace
 */

/**
 * @typedef {import("./decoders.js").Piece} Piece
 * @typedef {import("./errors.js").LossKind} LossKind
 * @typedef {import("./events.js").Outcome} Outcome
 * @typedef {import("./events.js").TailEvent} TailEvent
 * @typedef {import("./places.js").Place} Place
 * @typedef {import("./places.js").Store} Store
 * @typedef {import("./reading.js").State} State
 * @typedef {import("./reading.js").StateChange} StateChange
 * @typedef {import("./retries.js").Retry} Retry
 * @typedef {import("./rooms.js").JoinOptions} JoinOptions
 * @typedef {import("./streams.js").TailOptions} TailOptions
 * @typedef {import("./streams.js").Timeouts} Timeouts
 */

export { LinesDecoder } from "./decoders.js";
export {
  ClientError, DecodeError, FrameTooLarge, Loss, NotAStream, NotStoppable, StreamFailed, StreamLost, StreamRefused,
  StreamReset, TailraceError, TooManyUnsent, Truncated,
} from "./errors.js";
export { saved } from "./places.js";
export { Room, join } from "./rooms.js";
export { SSEDecoder } from "./sse.js";
export { Stream, tail } from "./streams.js";
