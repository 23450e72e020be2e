// Reads one reply to its end. A hidden tab gives its connection back, and goes on when it is visible again.

import { StreamFailed, StreamLost, tail } from "../js/tailrace.js";
import { report, reportDegraded, wake } from "./connection.js";
import { headers, URL_OF_SERVER } from "./server.js";
import { isVisible, visible, whenHidden } from "./visibility.js";

const NDJSON = "application/x-ndjson";
const PATIENCE = 30; // seconds in which a message is sent again if there is no answer
const NAME = "reply";

/** A message got no reply. Sending it again with the same key asks the model only once. */
export class Unanswered extends Error {
  name = "Unanswered";
}

export class Reading {
  #path;
  #request;
  #on;
  #protocol;
  #left = new AbortController();
  #stream = null;
  #address = null;
  #cursor;
  #isPaused = false;
  #isGivenUp = false;
  #isBusy = false; // whether the server's last answer was that it cannot deal with the message now
  #unseen = 0; // objects without a line, less lines whose objects are still to come

  /**
   * `path` is the reply's, or that to which `request` sends a message: options of `tail`. `on` has the functions
   * object(object), for each object of the reply, and reset(). `protocol` shows the lines.
   */
  constructor(path, request, on, protocol) {
    this.#path = path;
    this.#request = request;
    this.#on = on;
    this.#protocol = protocol;
    this.#address = request.json ? null : new URL(path, URL_OF_SERVER).href;
    whenHidden(() => this.#pause(), this.#left.signal);
  }

  /** True once the server has answered. */
  get isKnown() {
    return this.#address !== null;
  }

  get wasLeft() {
    return this.#left.signal.aborted;
  }

  /** Reads until the reply ends. Throws Unanswered, or the client's errors if the server refuses. */
  async run() {
    const { json } = this.#request;
    this.#protocol.begin(`${json ? "POST" : "GET"} /${this.#path}`);
    try {
      while (!(await this.#connect()) && !this.wasLeft) await this.#resumable();
    } finally {
      report(NAME, null);
      this.leave();
    }
    if (this.#isGivenUp) throw this.#unanswered();
  }

  /** Gives up a message that got no answer. */
  giveUp() {
    this.#isGivenUp = true;
    this.leave();
  }

  /** Leaves the reply, which itself continues. */
  leave() {
    this.#left.abort();
  }

  /** Stops the model. The stream gives up its connection for that, because a browser has few, and reads on. */
  stop() {
    return this.#stream.stop({ reconnect: true });
  }

  /** Reads from the place that was reached. Returns whether the reply has ended. */
  async #connect() {
    this.#isPaused = false;
    this.#stream = tail(new URL(this.#path, URL_OF_SERVER).href, this.#options());
    try {
      for await (const { event, data } of this.#stream) {
        if (event === "reset") this.#on.reset();
        else this.#give(data);
      }
      return !this.#isPaused;
    } catch (error) {
      return this.#judge(error);
    } finally {
      this.#address = this.#stream.address ?? this.#address;
      this.#cursor = this.#stream.cursor ?? this.#cursor;
    }
  }

  #unanswered() {
    return new Unanswered(this.#isBusy ? "The server is busy" : "No response from the server");
  }

  #open(response) {
    this.#isBusy = !response.ok;
    this.#unseen = 0;
    this.#protocol.head(response);
  }

  #see(text, total) {
    this.#unseen -= 1;
    this.#protocol.line(text, total);
  }

  /** Gives an object to the page. A browser drops the lines just before a broken end, so it may have had no line. */
  #give(object) {
    this.#unseen += 1;
    if (this.#unseen > 0) {
      this.#unseen = 0;
      this.#protocol.recovered(object);
    }
    this.#on.object(object);
  }

  #options() {
    const resumed = { address: this.#address ?? undefined, after: this.#cursor };
    return {
      ...(this.#address === null ? this.#request : resumed),
      accept: NDJSON,
      headers,
      signal: this.#left.signal,
      onReset: "restart",
      retry: { limit: Infinity, cap: 10, patience: PATIENCE },
      wake,
      onState: (state) => this.#tell(state),
      onDegraded: (isDegraded) => this.#degrade(isDegraded),
      onResponse: (response) => this.#open(response),
      onLine: (text, { total }) => this.#see(text, total),
    };
  }

  #tell(state) {
    if (this.wasLeft || this.#isPaused) return;
    if (state.state === "connecting") this.#isBusy = false;
    report(NAME, { ...state, isBusy: this.#isBusy });
    if (state.state === "waiting") this.#protocol.lost(state.reason, state.seconds);
    this.#address = this.#stream?.address ?? this.#address;
    this.#on.state?.(state);
  }

  #degrade(isDegraded) {
    reportDegraded(NAME, isDegraded);
    if (isDegraded) this.#protocol.fact("The server cannot reach its store, so text may be late");
  }

  #judge(error) {
    if (this.wasLeft || this.#isPaused) return false;
    if (error instanceof StreamFailed) {
      this.#give({ ...error.members, type: "error", code: error.code, message: error.detail });
      return true;
    }
    if (!(error instanceof StreamLost)) throw error;
    if ((this.#stream.address ?? this.#address) === null) throw this.#unanswered();
    return false;
  }

  #pause() {
    if (!this.#stream?.address && this.#address === null) return; // the message may not have been sent
    this.#isPaused = true;
    report(NAME, null);
    this.#stream?.close();
  }

  async #resumable() {
    if (isVisible()) return;
    this.#protocol.fact("The tab is hidden, so it gives its connection back");
    await visible(this.#left.signal);
  }
}
