// Reads a feed of the server over any number of connections. It knows nothing of the page or of what a feed is about.

const SHORTEST = 1_000; // milliseconds before the first new try, doubled for each further one
const LONGEST = 15_000;
const STEADY = 5_000; // milliseconds after which a connection counts as a good one
const OPENING = 20_000; // milliseconds in which a connection, or an answer why there is none, must be there
const REMEMBERED = 1_000; // ids, to drop what comes twice
const BUSY = new Set([408, 425, 429]); // refusals that may pass
const FOUND = "server-found"; // the event of the window when a feed is connected again
const NOTICES = ["reset", "farewell", "dropped", "done", "cancelled"]; // `error` is also what a lost connection is

/**
 * Connects to a feed, and stays connected until the feed ends or the signal is aborted. An address with the scheme ws
 * or wss is a WebSocket, any other one an EventSource. Each event is given once and in order, also those from while the
 * connection was lost.
 *
 * - `after`: the cursor to begin after. By default the server decides.
 * - `onEvent`: called with {id, event, data}. A `reset` means that what came before no longer belongs to this feed.
 * - `onState`: called with {state}:
 *   - `connecting`
 *   - `connected`
 *   - `waiting`, with `until` (when the next try begins) and `reason`
 *   - at the end `ended`, `refused` with `reason`, or `replaced`.
 * - `silence`: milliseconds without an event after which a connection counts as lost. By default it never does.
 *
 * Returns {after, send(text)}. `after` is the cursor of the last event. `send` returns whether there is a connection.
 */
export function connect(url, { after = null, onEvent, onState, signal, silence = Infinity }) {
  const feed = new Feed(url, { after, onEvent, onState, signal, silence });
  feed.run();
  return feed;
}

/**
 * Waits as long as the given try deserves, or less if the network comes back or another feed finds the server again.
 * Throws when the signal is aborted.
 */
export async function patience(tries, signal, tell, wait = null) {
  const milliseconds = wait ?? Math.min(LONGEST, SHORTEST * 2 ** tries) * (0.5 + Math.random() / 2);
  tell(Date.now() + milliseconds);
  const over = new AbortController();
  try {
    await new Promise((resolve, reject) => {
      if (signal.aborted) reject(signal.reason);
      const timer = setTimeout(resolve, milliseconds);
      over.signal.addEventListener("abort", () => clearTimeout(timer));
      signal.addEventListener("abort", () => reject(signal.reason), { signal: over.signal });
      for (const news of ["online", FOUND]) addEventListener(news, resolve, { signal: over.signal });
    });
  } finally {
    over.abort();
  }
}

class Feed {
  #url;
  #options;
  #seen = new Set();
  #socket = null;

  constructor(url, options) {
    this.#url = url;
    this.#options = options;
    this.after = options.after;
  }

  async run() {
    const { signal, onState } = this.#options;
    const open = /^wss?:$/.test(this.#url.protocol) ? this.#openSocket : this.#openSource;
    try {
      let resets = 0; // in a row
      for (let tries = 0; ; tries++) {
        onState({ state: "connecting" });
        const began = Date.now();
        const end = await this.#connection(open, tries > 0);
        signal.throwIfAborted();
        if (end.state !== "lost") return onState(end);
        if (Date.now() - began > STEADY) tries = 0;
        resets = end.reset ? resets + 1 : 0;
        if (resets === 1) continue; // a reset is an answer, and no reason to wait
        const tell = (until) => onState({ state: "waiting", until, reason: end.reason });
        await patience(tries, signal, tell, end.wait);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  send(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  /** Opens one connection. Returns how it ended: {state, reason}. The state `lost` asks for another one, see `lost`. */
  async #connection(open, again) {
    const { signal, silence, onState } = this.#options;
    const url = new URL(this.#url);
    if (this.after) url.searchParams.set("after", this.after);
    const over = new AbortController();
    let timer;
    let opened = false;
    try {
      return await new Promise((resolve) => {
        const alive = (patient = silence) => {
          clearTimeout(timer);
          const quiet = () => resolve(lost(`nothing arrived for ${Math.round(patient / 1000)} s`));
          if (patient < Infinity) timer = setTimeout(quiet, patient);
        };
        const onOpen = () => {
          opened = true;
          alive();
          onState({ state: "connected" });
          if (again) dispatchEvent(new Event(FOUND));
        };
        const onFrame = (text, framed = (frame) => frame) => {
          if (over.signal.aborted) return;
          alive();
          const data = parsed(text);
          const end = data === undefined ? lost("the server sent what is not JSON") : this.#take(framed(data));
          if (end) resolve(end);
        };
        const onEnd = async (end) => {
          if (!over.signal.aborted) resolve(opened ? end : await cause(url, signal));
        };
        signal.addEventListener("abort", () => resolve({ state: "aborted" }), { signal: over.signal });
        // A connection may take minutes to notice this itself.
        addEventListener("offline", () => resolve(lost("this computer is offline")), { signal: over.signal });
        alive(Math.min(silence, OPENING));
        open.call(this, url, { onOpen, onFrame, onEnd, signal: over.signal });
      });
    } finally {
      clearTimeout(timer);
      over.abort();
    }
  }

  /** Takes an event or a notice. Returns how the connection ends, if that ends it. */
  #take(frame) {
    const { id, event, data } = frame;
    if (id && this.#seen.has(id)) return null;
    if (id) {
      this.#seen.add(id);
      if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    }
    if (event !== "farewell") this.#options.onEvent(frame);
    if (id) this.after = id;
    if (event === "farewell") return farewell(data);
    if (event === "reset") return lost("the server began anew", { reset: true });
    if (event === "done" || event === "cancelled") return { state: "ended", reason: data?.message };
    if (event === "error") return { state: "ended", reason: data?.message ?? "the feed failed" };
    return null;
  }

  #openSource(url, { onOpen, onFrame, onEnd, signal }) {
    const source = new EventSource(url);
    signal.addEventListener("abort", () => source.close());
    source.addEventListener("open", onOpen);
    const take = (message) => {
      const event = message.type === "message" ? undefined : message.type;
      onFrame(message.data, (data) => ({ id: message.lastEventId || null, event, data }));
    };
    for (const name of ["message", ...NOTICES]) source.addEventListener(name, take);
    source.addEventListener("error", (event) => {
      if (event.data === undefined) onEnd(lost("the connection was lost"));
      else take(event);
    });
  }

  #openSocket(url, { onOpen, onFrame, onEnd, signal }) {
    const socket = new WebSocket(url);
    this.#socket = socket;
    signal.addEventListener("abort", () => socket.close());
    socket.addEventListener("open", onOpen);
    socket.addEventListener("message", (message) => onFrame(message.data));
    socket.addEventListener("close", ({ code, reason }) => onEnd(closed(code, reason)));
  }
}

/** Returns what a text says as JSON, or undefined if it is none. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Returns that a connection was lost. `wait` is the milliseconds that the server named, if it did. */
function lost(reason, { wait = null, reset = false } = {}) {
  return { state: "lost", reason, wait, reset };
}

function farewell({ reason, retry }) {
  if (reason === "replaced") return { state: "replaced" };
  return lost(reason === "slow" ? "this page was too slow" : "the server restarts", { wait: retry });
}

function closed(code, reason) {
  if (code === 1000) return { state: "ended" };
  if (code === 1003 || code === 1008) return { state: "refused", reason: reason || "the server does not let you in" };
  if (code === 1012) return lost("the server restarts");
  if (code === 1013) return lost("this page was too slow");
  if (code === 4409) return { state: "replaced" };
  return lost("the connection was lost");
}

/** Asks by plain HTTP why a connection was not opened, because a browser does not tell its scripts. */
async function cause(url, signal) {
  const plain = new URL(url);
  plain.protocol = plain.protocol.replace("ws", "http");
  try {
    const soon = AbortSignal.any([signal, AbortSignal.timeout(OPENING)]);
    const response = await fetch(plain, { headers: { Accept: "application/json" }, cache: "no-store", signal: soon });
    if (response.status === 204) return { state: "ended" };
    const problem = response.ok ? {} : await response.json().catch(() => ({}));
    const { status } = response;
    const reason = typeof problem.detail === "string" ? problem.detail : `the server answered with status ${status}`;
    if (status >= 400 && status < 500 && status !== 410 && !BUSY.has(status)) return { state: "refused", reason };
    return lost(response.ok ? "the stream was not opened, though the server answers" : reason);
  } catch {
    return lost("the server does not answer");
  }
}
