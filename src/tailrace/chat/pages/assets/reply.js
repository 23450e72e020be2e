// Reads a reply to its end, over any number of connections. It does not depend on a page.

import { Lines } from "./lines.js";
import { Refusal } from "./refusal.js";

const NDJSON = "application/x-ndjson";
const ENDS = new Set(["complete", "error"]);
const BUSY = new Set([408, 429, 502, 503, 504]); // statuses of failures that may pass
const SHORTEST = 500; // milliseconds before the first new try, doubled for each further one
const LONGEST = 10_000;
const AT_ONCE = 3_000; // milliseconds in which the server returns the document of an ended reply

/** A message got no answer, so the server may have it. Sending it again with the same key is safe. */
export class Unreachable extends Error {
  name = "Unreachable";
}

/** A connection ended before the reply did, for reasons that may pass. */
class Lost extends Error {
  constructor(message, wait = null) {
    super(message);
    this.wait = wait; // milliseconds, if the server named them
  }
}

/**
 * Yields the objects of a reply, each once and in order. The last one is a `complete` or an `error`. Without either,
 * the server has nothing after the cursor. A `reset` means that you must discard everything before it.
 *
 * `what` is a message to send, {message, sessionId, key}, or a reply to continue, {streamId, after}. A message is sent
 * again, with its idempotency key, until the server answers. After that, its reply is continued.
 *
 * Options:
 * - `url`: the address of the server, with a trailing slash.
 * - `headers`: a function that returns more headers for each request.
 * - `signal`: ends the reading. The reply itself continues.
 * - `onConnection`: called with {state}: "connecting", "connected", or "waiting" with `seconds` and `reason`.
 * - `wake`: a function from a signal to a promise. When the promise is fulfilled, a wait ends early.
 * - `silence`: milliseconds after which a silent connection is lost. The server pings every 15 seconds.
 * - `patience`: milliseconds in which a message is sent again. A reply is continued without a bound.
 *
 * Throws Refusal if the server refuses the request, and Unreachable.
 */
export async function* readReply(what, options) {
  const { signal, onConnection = () => {}, wake, patience = 30_000 } = options;
  let { streamId, after } = what;
  const began = Date.now();
  let resets = 0; // the number of resets in a row
  for (let tries = 0; ; tries++) {
    let lost;
    let silent = false;
    let reset = false; // whether the last object of this connection is a reset
    onConnection({ state: "connecting" });
    const connection = new Connection(options);
    try {
      const response = await connection.open(streamId ? resume(streamId, after) : send(what));
      onConnection({ state: "connected" });
      if (response.status === 204) return;
      streamId ??= streamOf(response);
      silent = true;
      for await (const object of connection.objects(response)) {
        silent = false;
        if (object.type === "farewell") throw new Lost("the server is shutting down", object.retry);
        streamId ??= object.stream_id;
        reset = object.type === "reset";
        resets = reset ? resets + 1 : 0;
        tries = 0;
        after = object.id ?? after;
        yield object;
        if (ENDS.has(object.type)) return;
      }
      lost = new Lost("the connection ended before the reply did");
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Lost)) throw error;
      lost = error;
    } finally {
      connection.close();
    }
    // The body of a failed reply is cut short after its last object, and a browser may discard the bytes before a cut.
    const rest = silent && streamId ? await endOf(streamId, after, options) : [];
    yield* rest;
    if (rest.length) return;
    if (!streamId && Date.now() - began > patience) throw new Unreachable(lost.message);
    // A reset is an answer, so earlier losses are no reason to wait. Only several resets in a row are.
    if (reset && resets === 1 && lost.wait === null) continue;
    tries = Math.max(tries, resets - 2);
    const wait = lost.wait ?? Math.min(LONGEST, SHORTEST * 2 ** tries) * (0.5 + Math.random() / 2);
    onConnection({ state: "waiting", seconds: wait / 1000, reason: lost.message });
    await pause(wait, signal, wake);
  }
}

function send({ message, sessionId, key }) {
  return {
    path: "chat/stream",
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify(sessionId ? { message, session_id: sessionId, create: false } : { message }),
  };
}

function resume(streamId, after) {
  const query = after ? `?${new URLSearchParams({ after })}` : "";
  return { path: `chat/stream/${encodeURIComponent(streamId)}${query}` };
}

/** Returns the id of a response's stream, if its headers name it. */
function streamOf(response) {
  return response.headers.get("content-location")?.split("/").at(-1);
}

/** Returns the objects after a cursor of a reply that has ended, or none while it is in progress. */
async function endOf(streamId, after, { url, signal, headers = () => ({}) }) {
  const soon = AbortSignal.timeout(AT_ONCE);
  let reply;
  try {
    const response = await fetch(new URL(resume(streamId).path, url), {
      headers: { Accept: "application/json", ...headers() },
      signal: signal ? AbortSignal.any([signal, soon]) : soon,
      cache: "no-store",
    });
    reply = await response.json();
  } catch {
    signal?.throwIfAborted();
  }
  if (!reply?.data) return [];
  const last = reply.data.findIndex(({ id }) => id === after);
  const rest = reply.data.slice(last + 1);
  if (after && last < 0) rest.unshift({ type: "reset", reason: "epoch_changed" });
  if (!reply.state) rest.push({ type: "error", code: reply.code, message: reply.detail });
  return rest;
}

/** One request and its response. It is given up if it is silent for too long. */
class Connection {
  #abort = new AbortController();
  #options;
  #timer;

  constructor(options) {
    this.#options = options;
  }

  async open({ path, headers, ...request }) {
    const { url, signal, headers: more = () => ({}) } = this.#options;
    const response = await this.#alive(
      fetch(new URL(path, url), {
        ...request,
        headers: { Accept: NDJSON, ...more(), ...headers },
        signal: signal ? AbortSignal.any([signal, this.#abort.signal]) : this.#abort.signal,
        cache: "no-store",
      }),
    );
    if (!response.ok) throw await refused(response);
    const type = response.headers.get("content-type") ?? "";
    if (response.status !== 204 && !type.startsWith(NDJSON)) {
      throw new Refusal(response.status, { detail: `expected a stream of ${NDJSON}, but got ${type || "no type"}` });
    }
    return response;
  }

  async *objects(response) {
    const reader = response.body.getReader();
    const lines = new Lines();
    for (;;) {
      const { done, value } = await this.#alive(reader.read());
      if (done) return;
      for (const line of lines.push(value)) yield JSON.parse(line);
    }
  }

  close() {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  /** Waits for a promise of the network. Any failure counts as a lost connection. */
  async #alive(promise) {
    const { silence = 40_000 } = this.#options;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#abort.abort(), silence);
    try {
      return await promise;
    } catch {
      const silent = this.#abort.signal.aborted;
      throw new Lost(silent ? `the server said nothing for ${silence / 1000} s` : "the connection was lost");
    } finally {
      clearTimeout(this.#timer);
    }
  }
}

async function refused(response) {
  const refusal = await Refusal.of(response);
  if (!BUSY.has(response.status)) return refusal;
  return new Lost(refusal.message, refusal.retryAfter === null ? null : refusal.retryAfter * 1000);
}

/** Waits for some milliseconds, or until `wake` ends the wait. Throws as soon as the signal is aborted. */
async function pause(milliseconds, signal, wake) {
  signal?.throwIfAborted();
  const over = new AbortController();
  try {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, milliseconds);
      over.signal.addEventListener("abort", () => clearTimeout(timer));
      signal?.addEventListener("abort", () => reject(signal.reason), { signal: over.signal });
      wake?.(over.signal).then(resolve, () => {});
    });
  } finally {
    over.abort();
  }
}
