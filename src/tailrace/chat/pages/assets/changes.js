// Follows what happens to the sessions, in this tab or elsewhere, while the tab is visible.

import { tail } from "../js/tailrace.js";
import { report, reportDegraded, wake } from "./connection.js";
import { headers, URL_OF_SERVER } from "./server.js";
import { visible, whenHidden } from "./visibility.js";

const NAME = "changes";

export class Changes {
  #on;
  #stream = null;
  #cursor;
  #round = null;
  #isResting = false;
  #isSure = false; // whether the cursor leads to all that happened since the stream was left

  /** `on` has the functions change(object), missed(), when changes may have been missed, and failed(error). */
  constructor(on) {
    this.#on = on;
  }

  /** Follows from now on. A second call begins anew, with the key that the page has now. */
  async follow() {
    this.#round?.abort();
    const round = (this.#round = new AbortController());
    whenHidden(() => this.#pause(), round.signal);
    while (!round.signal.aborted) {
      await visible(round.signal);
      await this.#read(round.signal);
    }
  }

  /** Gives the connection back while a reply is read, because a browser opens about six to a host, or goes on. */
  rest(isResting) {
    if (isResting === this.#isResting) return;
    this.#isResting = isResting;
    if (!isResting) return this.follow();
    this.#round?.abort();
    return report(NAME, null);
  }

  async #read(signal) {
    this.#stream = tail(new URL("sessions/changes", URL_OF_SERVER).href, {
      accept: "application/x-ndjson",
      headers,
      signal,
      after: this.#cursor,
      onReset: "restart",
      retry: { limit: Infinity, cap: 10 },
      timeouts: { event: Infinity },
      wake,
      onState: (state) => this.#tell(state, signal),
      onDegraded: (isDegraded) => reportDegraded(NAME, isDegraded),
    });
    try {
      for await (const { event, data } of this.#stream) {
        if (event === "reset") this.#on.missed();
        else this.#on.change(data);
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#round.abort();
      report(NAME, null);
      this.#on.failed(error);
    } finally {
      this.#cursor = this.#stream.cursor ?? undefined;
      this.#isSure = this.#isResting && this.#cursor !== undefined;
    }
  }

  #tell(state, signal) {
    if (signal.aborted || document.visibilityState !== "visible") return;
    report(NAME, state);
    if (state.state !== "open") return;
    if (!this.#isSure) this.#on.missed();
    this.#isSure = false;
  }

  #pause() {
    this.#stream?.close();
    report(NAME, null);
  }
}
