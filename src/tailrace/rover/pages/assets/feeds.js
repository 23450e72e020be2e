// The feeds of the dashboard: streams and rooms that are followed for as long as the page is open.

import { StreamRefused, TailraceError } from "./tailrace.js";

/** The page never gives up, unless a server wants more than ten minutes of rest. */
export const RETRY = { limit: Infinity, base: 1, cap: 15, longest: 600 };
const BACK = "server-back"; // the event of the window when a feed has a connection

/**
 * Follows a feed, and returns it. Each event is given once and in order, including those that came while the connection
 * was lost.
 * A `reset` means that what came before no longer belongs to the feed.
 *
 * - `begin`: `tail` or `join`. It gets the URL and all options.
 * - `onEvent`: called with {id, event, data}.
 * - `onState`: called with {state} and what belongs to it:
 *   - `connecting`
 *   - `open`
 *   - `waiting`, with `seconds` and `reason`
 *   - at the end `ended` or `failed` with `reason` if there is one, `refused` with `reason`, or `replaced`.
 * - `onDegraded`: called with whether the server cannot reach its store, at each change.
 * - `signal`: ends all this.
 */
export function follow(begin, url, { onEvent, onState, signal, ...options }) {
  const tell = (change) => {
    if (change.state === "open") dispatchEvent(new Event(BACK));
    // At an end there is more to say, and after a reset the next connection is due at once.
    const isNews = change.state === "waiting" ? change.seconds > 0 : ["connecting", "open"].includes(change.state);
    if (isNews && !signal.aborted) onState({ ...change, reason: reasonOf(change) });
  };
  const feed = begin(url, { onReset: "restart", retry: RETRY, wake: whenBack, ...options, signal, onState: tell });
  read(feed, { onEvent, onState, signal });
  return feed;
}

async function read(feed, { onEvent, onState, signal }) {
  try {
    for await (const event of feed) if (!signal.aborted) onEvent(event);
    if (!signal.aborted) onState({ state: "ended", reason: feed.outcome?.message ?? null });
  } catch (error) {
    if (signal.aborted) return;
    onState(endOf(error));
    if (!(error instanceof TailraceError)) throw error; // it is the page's own
  }
}

/** Waits until the device is online again, the page becomes visible, or another feed has found the server. */
export function whenBack(signal) {
  return new Promise((resolve) => {
    for (const news of ["online", BACK]) addEventListener(news, resolve, { signal });
    const look = () => document.visibilityState === "visible" && resolve();
    document.addEventListener("visibilitychange", look, { signal });
  });
}

const REASONS = {
  unsent: "no connection to the server",
  broken: "no connection to the server",
  silent: "the server has sent nothing for too long",
  unavailable: "the server is not available",
  farewell: "the server closed the connection",
};

function reasonOf({ kind, reason }) {
  return REASONS[kind] ?? reason;
}

function endOf(error) {
  if (error instanceof StreamRefused) {
    return { state: "refused", reason: error.detail ?? `the server answered with status ${error.status}` };
  }
  return error.kind === "replaced" ? { state: "replaced" } : { state: "failed", reason: error.detail ?? error.message };
}
