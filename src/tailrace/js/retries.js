// Failures, and the time until the next attempt.

/**
 * @typedef {object} Retry The budget of failures between two new events.
 * @property {number} limit Failures in a row.
 * @property {number} base Seconds: a wait is a random time up to this, doubled with each failure.
 * @property {number} cap Seconds: the bound for that doubling.
 * @property {number} longest Seconds that a server may ask for. After a longer Retry-After, the client gives up.
 * @property {number} patience Seconds for all attempts together.
 */

/** @type {Retry} */
const RETRY = { limit: 8, base: 0.5, cap: 30, longest: 60, patience: Infinity };

/**
 * Returns the defaults with the given values instead, except for those that are undefined.
 *
 * @template {object} T
 * @param {T} defaults
 * @param {Partial<T>} [given]
 * @returns {T}
 */
export function withDefaults(defaults, given = {}) {
  const meant = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(meant) };
}

/** Exponential backoff with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. */
export class Backoff {
  failures = 0;
  #floor = 0;
  #since = performance.now();
  #retry;

  /** @param {Partial<Retry>} [retry] */
  constructor(retry) {
    this.#retry = withDefaults(RETRY, retry);
  }

  succeed() {
    this.failures = 0;
    this.#since = performance.now();
  }

  /** Waits at least as long as the server asks before each attempt, but no longer than `longest`. */
  heed(/** @type {number} */ seconds) {
    this.#floor = Math.min(seconds, this.#retry.longest);
  }

  /**
   * Counts a failure. Returns the seconds to wait, or in words why there is no further attempt.
   *
   * @param {number | undefined} told
   * @param {number} [atLeast]
   */
  fail(told, atLeast = 0) {
    const { limit, base, cap, longest, patience } = this.#retry;
    if (++this.failures > limit) return "";
    const wanted = told ?? atLeast;
    if (wanted > longest) {
      return `the server asks for a pause of ${wanted.toFixed()} s, but Retry(longest=${longest}) allows less`;
    }
    const bound = Math.min(cap, base * 2 ** (this.failures - 1));
    const delay = told ?? Math.max(atLeast, this.#floor + Math.random() * bound);
    const isOver = performance.now() / 1000 + delay > this.#since / 1000 + patience;
    return isOver ? "" : Math.max(0, delay);
  }
}

/** Returns the seconds of a Retry-After header with a number or a date. */
export function readRetryAfter(/** @type {string | null} */ value) {
  if (value === null) return undefined;
  if (/^[0-9]+$/.test(value)) return Number(value);
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - Date.now()) / 1000);
}

const LONGEST_TIMER = 2 ** 31 - 1; // a longer one would fire at once

/** Calls a function after some seconds. Returns a function that prevents it. */
export function after(/** @type {number} */ seconds, /** @type {() => void} */ act) {
  const timer = setTimeout(act, Math.min(seconds * 1000, LONGEST_TIMER));
  return () => clearTimeout(timer);
}

/**
 * Waits for some seconds, or until `signal` aborts, or until `wake` is fulfilled.
 *
 * @param {number} seconds
 * @param {AbortSignal} signal
 * @param {((signal: AbortSignal) => Promise<void>) | undefined} wake
 */
export async function pause(seconds, signal, wake) {
  const over = new AbortController();
  await new Promise((/** @type {(value: void) => void} */ resolve) => {
    if (signal.aborted) resolve();
    const cancel = after(seconds, resolve);
    over.signal.addEventListener("abort", cancel);
    signal.addEventListener("abort", () => resolve(), { signal: over.signal });
    wake?.(over.signal).then(resolve, () => {});
  });
  over.abort();
}

/** Waits until the device is online again or the page becomes visible. @param {AbortSignal} signal */
export function whenBack(signal) {
  const { document, addEventListener } = globalThis;
  return new Promise((/** @type {(value: void) => void} */ resolve) => {
    addEventListener("online", () => resolve(), { signal });
    const look = () => document.visibilityState === "visible" && resolve();
    document?.addEventListener("visibilitychange", look, { signal });
  });
}
