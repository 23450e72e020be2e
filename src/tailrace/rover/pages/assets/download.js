// Downloads a file that can be paused, and that goes on where it was after a lost connection.

import { RETRY, whenBack } from "./feeds.js";
import { Backoff, pause, readRetryAfter } from "./retries.js";

const SILENCE = 20_000; // milliseconds after which a silent connection counts as lost
const MEASURED = 3_000; // milliseconds that the rate is measured over
const BEAT = 100; // milliseconds between two pieces if the rate is limited
const LARGEST = 256 * 2 ** 20; // bytes that are kept

/**
 * `state` is one of `idle`, `connecting`, `loading`, `paused`, `waiting` (see `until` and `reason`), `complete` and
 * `failed` (see `reason`). `changed` tells whether the file changed on the server, so the download started again.
 */
export class Download {
  state = "idle";
  received = 0;
  total = null; // bytes, if the server names them
  changed = false;
  unchanged = false; // whether the server was asked, and has nothing newer
  limit = Infinity; // bytes a second
  #url;
  #onChange;
  #blob = new Blob();
  #pieces = [];
  #etag = null;
  #type = "";
  #leave = null; // ends the run that goes on
  #over = null; // the promise of the last run
  #spent = 0; // milliseconds of connections that are over
  #since = null;
  #samples = [];
  #due = 0; // when the next piece may be taken, if the rate is limited

  constructor(url, onChange) {
    this.#url = url;
    this.#onChange = onChange;
  }

  /** What has arrived. */
  get blob() {
    this.#blob = new Blob([this.#blob, ...this.#pieces.splice(0)], { type: this.#type });
    return this.#blob;
  }

  /** The seconds that bytes were awaited. */
  get seconds() {
    return (this.#spent + (this.#since === null ? 0 : performance.now() - this.#since)) / 1000;
  }

  /** Bytes a second: recently, or over all if it is complete. */
  get rate() {
    if (this.state !== "loading") return this.seconds > 0 ? this.received / this.seconds : 0;
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    return first && last.at > first.at ? ((last.received - first.received) / (last.at - first.at)) * 1000 : 0;
  }

  /** Begins, goes on, or if it is complete asks for a newer one. */
  async start() {
    if (this.#leave) return;
    const leave = new AbortController();
    this.#leave = leave;
    await this.#over; // a run that was paused just now
    if (leave.signal.aborted) return;
    this.#over = this.#run(leave.signal)
      .catch((error) => {
        if (!leave.signal.aborted) this.#tell("failed", { reason: error.message });
      })
      .finally(() => {
        if (this.#leave === leave) this.#leave = null;
      });
  }

  pause() {
    this.#leave?.abort();
    this.#leave = null;
    this.#tell("paused");
  }

  async #run(signal) {
    const asking = this.state === "complete";
    this.unchanged = false;
    const backoff = new Backoff(RETRY);
    for (;;) {
      this.#tell("connecting");
      const before = this.received;
      const lost = await this.#connection(signal, asking);
      signal.throwIfAborted();
      if (lost === null) return;
      if (this.received > before) backoff.succeed();
      const delay = backoff.fail(lost.wait);
      if (typeof delay === "string") throw new Useless(delay);
      this.#tell("waiting", { until: Date.now() + delay * 1_000, reason: lost.reason });
      await pause(delay, signal, whenBack);
      signal.throwIfAborted();
    }
  }

  /** Makes one request. Returns null if nothing is missing, or why it was lost, and the seconds that the server named. */
  async #connection(signal, asking) {
    const silent = new AbortController();
    let timer;
    const alive = async (promise) => {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE);
      try {
        return await promise;
      } finally {
        clearTimeout(timer);
      }
    };
    this.#since = performance.now();
    try {
      const request = {
        headers: this.#conditions(asking),
        cache: "no-store",
        signal: AbortSignal.any([signal, silent.signal]),
      };
      const response = await alive(fetch(this.#url, request));
      const refusal = await this.#begin(response);
      if (refusal !== undefined) return refusal;
      this.#tell("loading");
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await alive(reader.read());
        if (done) break;
        for await (const piece of this.#paced(value, signal)) this.#take(piece);
      }
      if (this.total !== null && this.received < this.total) return { reason: "the connection was lost" };
      this.#stop();
      this.changed = false;
      this.#tell("complete");
      return null;
    } catch (error) {
      if (error instanceof Useless) throw error;
      return { reason: silent.signal.aborted ? "nothing arrived for 20 s" : "the connection was lost" };
    } finally {
      this.#stop();
    }
  }

  #conditions(asking) {
    if (asking) return this.#etag ? { "If-None-Match": this.#etag } : {};
    if (this.received === 0) return {};
    // A weak validator cannot promise that the bytes are the same (RFC 9110, section 13.1.5), so the download starts again.
    if (!this.#etag || this.#etag.startsWith("W/")) return {};
    return { Range: `bytes=${this.received}-`, "If-Range": this.#etag };
  }

  /** Takes the head of a response. Returns what its connection returns if there is no body to read. */
  async #begin(response) {
    const { status, headers } = response;
    if (status === 304) {
      this.unchanged = true;
      this.#stop();
      this.#tell("complete");
      return null;
    }
    const etag = headers.get("etag");
    const start = /^bytes (\d+)-/.exec(headers.get("content-range"))?.[1];
    if (status === 206 && Number(start) === this.received) return undefined;
    if (status === 416 || status === 206) {
      this.#clear(true);
      return { reason: "the file is another one now", wait: 0 };
    }
    if (status !== 200) {
      await response.body?.cancel();
      const words = `the server answered with status ${status}`;
      if (status < 500 && status !== 408 && status !== 429) throw new Useless(words);
      return { reason: words, wait: readRetryAfter(headers.get("retry-after")) };
    }
    this.#clear(this.#etag !== null && etag !== this.#etag);
    this.#etag = etag;
    this.#type = headers.get("content-type") ?? "";
    this.total = headers.has("content-length") ? Number(headers.get("content-length")) : null;
    this.#refuseLarge(this.total);
    return undefined;
  }

  #clear(changed) {
    this.changed ||= changed;
    this.received = 0;
    this.total = null;
    this.#blob = new Blob();
    this.#pieces = [];
    this.#samples = [];
    this.#spent = 0;
    this.#since = performance.now();
  }

  #refuseLarge(size) {
    if (size <= LARGEST) return;
    throw new Useless(`expected at most ${LARGEST / 2 ** 20} MB, but got ${Math.ceil(size / 2 ** 20)} MB`);
  }

  #take(piece) {
    this.#pieces.push(piece);
    this.received += piece.byteLength;
    this.#refuseLarge(this.received);
    const at = performance.now();
    this.#samples.push({ at, received: this.received });
    while (this.#samples[0].at < at - MEASURED) this.#samples.shift();
    this.#onChange(this);
  }

  /** Yields bytes no faster than the limit, which may change meanwhile. TCP lets the server wait as well. */
  async *#paced(bytes, signal) {
    for (let start = 0; start < bytes.byteLength; ) {
      const size = Math.ceil((this.limit / 1000) * BEAT);
      if (this.limit < Infinity) {
        const now = performance.now();
        this.#due = Math.max(this.#due, now - BEAT) + BEAT;
        await new Promise((resolve) => setTimeout(resolve, this.#due - now));
      }
      signal.throwIfAborted();
      yield bytes.subarray(start, start + size);
      start += size;
    }
  }

  #stop() {
    if (this.#since !== null) this.#spent += performance.now() - this.#since;
    this.#since = null;
  }

  #tell(state, { until = null, reason = null } = {}) {
    if (state === "connecting") this.#samples = [];
    this.state = state;
    this.until = until;
    this.reason = reason;
    this.#onChange(this);
  }
}

/** A failure that another try would meet again. */
class Useless extends Error {}
